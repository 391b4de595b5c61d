"""`python -m medtwin`."""

from medtwin.cli import main

if __name__ == "__main__":
    main()
