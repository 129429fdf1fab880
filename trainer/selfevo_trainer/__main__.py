import sys

from selfevo_trainer.main import main

sys.exit(main())
