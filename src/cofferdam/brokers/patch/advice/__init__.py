"""Advisories: what vendors say of their products, and what a site answers and until when.

    records    what a reader says of a document
    versions   do versions compare, and how
    matching   is this software affected
    csaf, lists, boms   the three kinds of documents
    reader     the job that reads one, and is thrown away
    ledger     what is kept of each, and its clocks
    asking     what people ask
    desk       the keeper's work with them, and its verbs

`schema/` has the JSON Schema of CSAF 2.0 (Copyright OASIS Open 2022, unmodified, see schema/NOTICE) and those of CVSS
that it refers to (Copyright FIRST.ORG, Inc., with their licence in each file).
"""
