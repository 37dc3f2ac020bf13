"""The audit log's events, a module for each topic. A topic says:

- its classes, and `Draft`, their union, which `audit.entry` joins to the log's closed set (one line a topic);
- who may say what, as tuples named after the maker: GATE, OUTER, INNER, KEEPER, ... A part's profile takes its own, and
  the auditor takes from a producer no more than that;
- CROWD, if there is such: which of them whoever speaks with a part can cause as often as they like. They have a share
  of the log for each day (audit.quota), and are counted beyond it; all others are never left out;
- LINES, if it likes: how a kind reads for people. A kind that is not there is shown member by member.

A module of events is written down for good: a log outlives the gate that wrote it. So members are added, with a
default, and neither renamed nor given another meaning.
"""
