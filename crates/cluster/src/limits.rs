//! Every bound of the replicated state, with its reason.

/// IKE SAs the cluster holds: a hundred thousand peers and some room.
pub const IKE_SAS_MAX: usize = 131_072;

/// Child SAs the cluster holds: two per IKE SA, one of them for the moment of a rekey.
pub const CHILD_SAS_MAX: usize = 262_144;

/// Bytes of one exported IKE SA. The largest parts are the last response and the outstanding
/// request, each at most one UDP datagram's worth of IKE message.
pub const IKE_STATE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of all exported IKE SAs together: what a snapshot can carry in one piece.
pub const IKE_STATE_BYTES_TOTAL_MAX: usize = 160 * 1024 * 1024;

/// Bytes of a connection name: what fits on a line of a table.
pub const CONNECTION_NAME_BYTES_MAX: usize = 255;

/// Traffic selectors of one direction; RFC 7296 section 3.13 counts them in one octet.
pub const SELECTORS_MAX: usize = 255;

/// Traffic selectors of all Child SAs together: eight for each of as many as there may be.
pub const SELECTORS_TOTAL_MAX: usize = 8 * CHILD_SAS_MAX;

/// Changes in one `Ike` command. One exchange makes a handful; the bound stops a broken proposer.
pub const CHANGES_MAX: usize = 4_096;

/// Items in one `Grant` command: a low range and a low horizon of 8192 Child SAs in one batch.
pub const GRANTS_MAX: usize = 16_384;

/// Items in one `Settle` command: at their largest, with every run of unseen numbers there may be,
/// they fit into one entry.
pub const SETTLE_ITEMS_MAX: usize = 1_024;

/// Targets that can be draining. More than a Maglev table distributes over sensibly.
pub const DRAINING_TARGETS_MAX: usize = 4_096;

/// Voters of one cluster: Raft gains nothing from more.
pub const MEMBERS_MAX: usize = 7;

/// Ids that were removed and may not come back: a member replaced every day for eleven years.
pub const RETIRED_MEMBERS_MAX: usize = 4_096;

/// Bytes of a member's address: an IPv6 address with scope and port has fewer.
pub const MEMBER_ADDRESS_BYTES_MAX: usize = 255;

/// Bytes of one encoded command: one log entry, one message, one write.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the secret from which marks are derived: as many as the PRF that derives them puts out.
pub const MARK_SECRET_BYTES: usize = 32;

/// Records carried on by one command: a few tens of kilobytes, applied within a millisecond.
pub const CARRIED_MAX: usize = 4_096;

/// Bytes of the reason of a hold: a line for the operator.
pub const HOLD_REASON_BYTES_MAX: usize = 255;
