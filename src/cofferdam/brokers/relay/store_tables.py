"""The tables of the keeper's store, and what its file says of itself.

A message's id is its channel's above `NUMBER_BITS` bits, and its number below.

Not here: what is done with them (store).
"""

from __future__ import annotations

from typing import Final

APPLICATION: Final = 0x43664B31
VERSION: Final = 1
NUMBER_BITS: Final = 44

TABLES: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE channels(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, next INTEGER, gone INTEGER, messages INTEGER,
  size INTEGER, held INTEGER, held_size INTEGER, paused INTEGER, sealed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE principals(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, who INTEGER, key TEXT, sha256 BLOB, sent BLOB, at INTEGER, size INTEGER,
  grp INTEGER, body BLOB);
CREATE TABLE positions(channel INTEGER, consumer INTEGER, cursor INTEGER, lease INTEGER, dead INTEGER,
  PRIMARY KEY(channel, consumer)) WITHOUT ROWID;
CREATE TABLE open(channel INTEGER, consumer INTEGER, number INTEGER, lease INTEGER, until INTEGER, count INTEGER,
  PRIMARY KEY(channel, consumer, number)) WITHOUT ROWID;
CREATE TABLE dead(channel INTEGER, consumer INTEGER, number INTEGER, count INTEGER, reason TEXT, at INTEGER,
  PRIMARY KEY(channel, number, consumer)) WITHOUT ROWID;
CREATE TABLE steps(channel INTEGER, lim TEXT, key TEXT, value, at INTEGER, counts BLOB,
  PRIMARY KEY(channel, lim, key)) WITHOUT ROWID;
CREATE TABLE held(id INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER, who INTEGER, key TEXT, sha256 BLOB,
  size INTEGER, at INTEGER, problem BLOB, body BLOB, edited BLOB, editors BLOB, approved BLOB);
CREATE INDEX held_keys ON held(channel, who, key);
CREATE TABLE told(grp INTEGER PRIMARY KEY, pushed BLOB, drafts BLOB);
CREATE TABLE gaps(channel INTEGER PRIMARY KEY, gaps BLOB);
CREATE TABLE segments(id INTEGER PRIMARY KEY, tops BLOB, prints BLOB, messages BLOB);
"""
