import os
import sys

from selfevo_trainer.main import main
from selfevo_trainer.process.quiet import hide_trackers

hide_trackers()
code = main()
sys.stdout.flush()
sys.stderr.flush()
# At once: an upload that there was no time for is not waited for by the threads that were at it.
os._exit(code) if code == 143 else sys.exit(code)
