"""`python -m selfevo_operator`."""

import logging
import os

from selfevo_operator.main import main

code = main()
logging.shutdown()
os._exit(code)  # what is in memory may be lost at any time, and a dead stream must not keep the process
