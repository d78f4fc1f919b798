"""`python -m nni_proxyless` is the `nni-proxyless` command."""

from .cli.entry import main

if __name__ == "__main__":
    main()
