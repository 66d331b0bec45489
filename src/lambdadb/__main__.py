"""`python -m lambdadb` is the command `lambdadb`."""

from lambdadb.cli import main

if __name__ == "__main__":
    main()
