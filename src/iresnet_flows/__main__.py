"""``python -m iresnet_flows`` is ``iresnet-flows``."""

from iresnet_flows.cli import main

if __name__ == "__main__":
    main()
