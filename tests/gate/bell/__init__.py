"""A toy of a broker, by docs/add-a-broker.md: whoever stands outside rings a bell inside. It has two parts, one
record each way, and no hours. It lives here and in no table of the product (tests/gate/test_new_broker.py).
"""
