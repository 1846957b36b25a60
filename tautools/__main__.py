"""`python -m tautools` is `tautools`."""

from __future__ import annotations

from tautools.cli import main

if __name__ == "__main__":
    main()
