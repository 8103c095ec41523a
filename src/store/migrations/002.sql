-- Devices that decisions were made for, by a number that never changes.
CREATE TABLE decided_devices (n INTEGER PRIMARY KEY, device TEXT NOT NULL UNIQUE) STRICT;

-- Decisions, by device and time: id is the device's number * 2^44 plus the wall time in ms. base: the id of the row whose text
-- this one was packed against (of the same device and day, UTC); NULL: against the fixed text alone.
CREATE TABLE decisions (id INTEGER PRIMARY KEY, base INTEGER, data BLOB NOT NULL) STRICT;

-- When derd was not running, or left no trace: from the last mark of one run to the start of the next, ms.
CREATE TABLE gaps (began INTEGER PRIMARY KEY, ended INTEGER NOT NULL) STRICT;
