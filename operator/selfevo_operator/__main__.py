"""`python -m selfevo_operator`."""

import logging
import os
import sys

# kopf imports the official client where it is installed, to know that client's objects when it is given some, which we
# never do: 20 MiB and a third of the start. What needs the client (a kubeconfig's plugin) imports it later.
sys.modules["kubernetes"] = None  # type: ignore[assignment]
import kopf  # noqa: E402, F401

del sys.modules["kubernetes"]

from selfevo_operator.main import main  # noqa: E402

code = main()
logging.shutdown()
os._exit(code)  # what is in memory may be lost at any time, and a dead stream must not keep the process
