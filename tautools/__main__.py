"""`python -m tautools` is `tautools`."""

from tautools.cli import main

if __name__ == "__main__":
    main()
