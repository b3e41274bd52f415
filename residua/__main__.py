"""`python -m residua`, and so `torchrun --nproc-per-node 2 -m residua train ...`."""

from residua.cli import main

if __name__ == "__main__":
    main()
