"""A mutation fuzzer for everything that reads bytes from elsewhere. See engine and __main__."""
