"""Checks on a booted Debian in a virtual machine: `make vm`. Not part of the test suite."""
