"""`python -m selfevo_operator`."""

import sys

from selfevo_operator.main import main

sys.exit(main())
