"""`python -m selfevo_contract.crd`: writes the CRD anew."""

from selfevo_contract.crd.resource import main

main()
