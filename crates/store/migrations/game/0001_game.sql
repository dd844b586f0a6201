-- The process that leads a world. Every command of a world carries its term; lower terms are refused.
CREATE TABLE leadership (
    world BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,
    incarnation BIGINT NOT NULL,
    term BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    -- Duration of the lease. One that ends later than this from now was granted before the clock was set back.
    ttl_ms BIGINT NOT NULL
);

-- Blocks of ids for replicas. Gaps are allowed, repeats are not.
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    next BIGINT NOT NULL
);

-- A change of owner raises `epoch`, a change of items, coins or experience raises `version`. `soft_sequence` is the
-- sequence of the last soft state written in this epoch; an older state never replaces a newer one.
CREATE TABLE characters (
    id BIGINT PRIMARY KEY,
    account BIGINT NOT NULL,
    world BIGINT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    owner TEXT NOT NULL,
    owner_incarnation BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    session BYTEA NOT NULL,
    space BIGINT NOT NULL,
    layer BIGINT NOT NULL,
    x_mm BIGINT NOT NULL,
    y_mm BIGINT NOT NULL,
    z_mm BIGINT NOT NULL,
    facing BIGINT NOT NULL,
    health BIGINT NOT NULL,
    experience BIGINT NOT NULL,
    last_action BIGINT NOT NULL,
    version BIGINT NOT NULL,
    soft_sequence BIGINT NOT NULL,
    UNIQUE (world, name_key)
);
CREATE INDEX characters_of_account ON characters (account, world);
CREATE INDEX characters_of_owner ON characters (world, owner);

-- A stack of items and its holder, a ledger account: "c:<character>" or "g:<world>:<space>:<x>:<y>". World and position
-- are set for stacks on the ground only. `hop` counts the moves of the stack.
CREATE TABLE items (
    id BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,
    template BIGINT NOT NULL,
    count BIGINT NOT NULL CHECK (count > 0),
    hop BIGINT NOT NULL,
    world BIGINT,
    space BIGINT,
    layer BIGINT,
    x_mm BIGINT,
    y_mm BIGINT,
    z_mm BIGINT
);
CREATE INDEX items_of_holder ON items (holder);
CREATE INDEX items_on_ground ON items (world, space, y_mm, id) WHERE world IS NOT NULL;

CREATE TABLE balances (
    holder TEXT PRIMARY KEY,
    coins BIGINT NOT NULL CHECK (coins >= 0)
);

-- The journal of all moves of stacks and coins, from their origins on. The transaction that moves them writes it.
CREATE TABLE item_journal (
    item BIGINT NOT NULL,
    hop BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    template BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (item, hop)
);
CREATE TABLE coin_journal (
    id BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0)
);

-- The results of the last 256 actions of each character, at `slot` = id modulo 256. They answer repeats.
CREATE TABLE actions (
    character BIGINT NOT NULL,
    slot BIGINT NOT NULL,
    id BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    minted BYTEA NOT NULL,
    PRIMARY KEY (character, slot)
);

-- The highest generation of each spawn that has minted loot, and the items it minted.
CREATE TABLE spawns (
    world BIGINT NOT NULL,
    space BIGINT NOT NULL,
    spawn BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    minted BYTEA NOT NULL,
    PRIMARY KEY (world, space, spawn)
);

-- The layout of a world: its spaces, and the sectors that divide each of them among zones. Every change raises the
-- revision by one. `term` is the term that made the last change. `next_space` and `next_sector` only rise, so that no
-- number is used again.
CREATE TABLE layouts (
    world BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL,
    term BIGINT NOT NULL,
    next_space BIGINT NOT NULL,
    next_sector BIGINT NOT NULL
);

-- `state`: 0 open, 1 closing. Width and height are in cells of 32 m.
CREATE TABLE spaces (
    world BIGINT NOT NULL,
    space BIGINT NOT NULL,
    map TEXT NOT NULL,
    state BIGINT NOT NULL,
    tick_hz BIGINT NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (world, space)
);

-- A rectangle of cells, x1 and y1 exclusive. `owner` is the name of a zone and empty without an owner. `epoch` rises
-- with every change of the owner. `pinned` is the zone that an operator has chosen, or empty.
CREATE TABLE sectors (
    world BIGINT NOT NULL,
    sector BIGINT NOT NULL,
    space BIGINT NOT NULL,
    x0 BIGINT NOT NULL,
    y0 BIGINT NOT NULL,
    x1 BIGINT NOT NULL,
    y1 BIGINT NOT NULL,
    owner TEXT NOT NULL,
    owner_incarnation BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    pinned TEXT NOT NULL,
    PRIMARY KEY (world, sector)
);
CREATE INDEX sectors_of_space ON sectors (world, space);
