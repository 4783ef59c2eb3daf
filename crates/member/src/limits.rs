//! Every bound and pace of a member, with its reason.

/// Targets a member distributes over. The Maglev table stays even to about a hundredth of its size.
pub const TARGETS_MAX: usize = 512;

/// Rows of the Maglev table: a prime more than a hundred times the targets, 1 % even.
pub const MAGLEV_ROWS: usize = 65_537;

/// Station addresses known per side: a large access network. The oldest unneeded goes first.
pub const NEIGHBOURS_MAX: usize = 16_384;

/// Frames kept while their next hop is being resolved. IKE peers repeat what is lost.
pub const HELD_FRAMES_MAX: usize = 256;

/// Frames kept per next hop: an IKE message in a few fragments.
pub const HELD_FRAMES_PER_HOP_MAX: usize = 16;

/// How long a frame is kept: longer than ARP takes, shorter than an IKE retransmission.
pub const HELD_FRAME_MS: u64 = 500;

/// ARP questions in one round of [`PROBE_ROUND_MS`]: a thousand per second at most, so that a
/// large access network is not flooded by its gatekeeper.
pub const PROBES_PER_ROUND_MAX: usize = 20;

/// Time between two rounds of ARP questions.
pub const PROBE_ROUND_MS: u64 = 20;

/// The owner checks each target this often; three times unanswered is down.
pub const TARGET_CHECK_MS: u64 = 1_000;

/// A standby checks targets this often, to be warm when it takes over.
pub const TARGET_CHECK_STANDBY_MS: u64 = 3_000;

/// While an address is unknown it is asked for this often at most.
pub const RESOLVE_RETRY_MS: u64 = 200;

/// How often the next hops of known peers are asked again. Their own traffic refreshes them too.
pub const NEXT_HOP_CHECK_MS: u64 = 5_000;

/// The next hops of peers that left are forgotten this often.
pub const NEXT_HOP_REVIEW_MS: u64 = 60_000;

/// Another station's claim to our addresses is answered this often at most (RFC 5227 section 2.4
/// warns of two stations defending against each other for ever).
pub const DEFEND_PAUSE_MS: u64 = 1_000;

/// An unanswered target is down after this many questions in a row.
pub const UNANSWERED_MAX: u32 = 3;

/// IKE outcomes waiting for their commit. A commit takes milliseconds, so this is tens of
/// thousands of exchanges per second; beyond it datagrams are dropped and peers repeat them.
pub const PENDING_READY_MAX: usize = 1_024;

/// The same where simulated clusters run on little, so that they meet the bound.
pub const PENDING_READY_SMALL: usize = 3;

/// A grant entry waits this long for company: few entries at any packet rate, little delay.
pub const GRANT_BATCH_MS: u64 = 2;

/// A grant that was asked for is asked for again after this long, should it have been lost.
pub const GRANT_RETRY_MS: u64 = 100;

/// A proposal that was not taken is tried again after this long.
pub const PROPOSE_RETRY_MS: u64 = 2;

/// Renewals under way at the same time: a round trip of 10 ms then allows 6400 per second, while
/// the key exchanges (about 0.2 ms each) leave the controller time for heartbeats.
pub const RENEWALS_OUTSTANDING_MAX: usize = 64;

/// Renewals started in one go, so that the key exchanges do not delay a heartbeat.
pub const RENEWALS_PER_ROUND_MAX: usize = 8;

/// Time between two rounds of renewals.
pub const RENEWAL_ROUND_MS: u64 = 2;

/// Renewals under way beyond which only urgent ones are begun: peers that do not answer any more must
/// not keep those waiting that were just heard.
pub const RENEWALS_PLANNED_MAX: usize = 48;

/// A renewal without outcome stops counting as outstanding after this long: IKE goes on trying. Longer
/// than a round trip with a repetition or two, short enough for thousands of dead peers.
pub const RENEWAL_PATIENCE_MS: u64 = 2_000;

/// A renewal that failed is tried again after twice this long, then four times, and so on, each time
/// with as much again of jitter.
pub const RENEWAL_RETRY_MS: u64 = 1_000;

/// A renewal that failed this often is given up, and shown as failed.
pub const RENEWAL_ATTEMPTS_MAX: u32 = 6;

/// SAs whose numbers moved shortly before the takeover are renewed between these two moments after it,
/// unless they move on by themselves. A TCP sender that lost packets in the outage repeats one after
/// 200 ms at the earliest (RFC 6298 says a second, Linux uses a fifth): the new SA is to be there by then,
/// or the answer to it is refused as ambiguous and twice the time passes before the next.
pub const ACTIVE_RENEWAL_MS: (u64, u64) = (20, 120);

/// An SA is active when its horizon moved, or it was made, this long before the takeover: twice the
/// time a flow of ten packets a second takes for the smallest step.
pub const ACTIVE_MS: u64 = 13_000;

/// How far below the floor a peer that was not heard is taken to be: two steps of the horizon at some
/// hundred thousand packets a second. One that is further below is heard in the ambiguous zone then, and
/// rekeyed.
pub const SYNC_GAP_PACKETS: u64 = 1 << 13;

/// A peer that said it has counted on and is not seen beyond the floor between these two moments is
/// rekeyed.
pub const SYNC_GRACE_MS: (u64, u64) = (1_000, 2_000);

/// Outbound numbers given up at a peer's wish; a peer that wants more is rekeyed.
pub const COUNT_ON_PACKETS_MAX: u64 = 1 << 24;

/// New IKE SAs in place of old ones are begun between these two moments after a takeover.
pub const REESTABLISH_MS: (u64, u64) = (0, 1_000);

/// Silent SAs are renewed between these two moments after a takeover, spread evenly by jitter.
pub const IDLE_RENEWAL_MS: (u64, u64) = (60_000, 360_000);

/// Child SAs handed to the workers in one call after a takeover: a millisecond or two, so that no
/// heartbeat is late.
pub const LOAD_CHILDREN_PER_ROUND: usize = 512;

/// The same where simulated clusters run on little, so that their few SAs take several slices.
pub const LOAD_CHILDREN_SMALL: usize = 1;

/// The longest pause between two of these slices, otherwise as long as the slice before took: a controller
/// that was not run for a while is not to lose as much again.
pub const LOAD_PAUSE_MS_MAX: u64 = 5;

/// How long the workers of a new owner keep a frame at most until its SA is loaded: several times what a
/// hundred thousand take on cores shared with other work. TCP has repeated a frame by then.
pub const LOAD_HOLD_MS: u64 = 2_000;

/// Child SAs made ready in one call on a standby: a fraction of a millisecond.
pub const WARM_CHILDREN_PER_ROUND: usize = 128;

/// Time between two slices of them: a hundred thousand are ready in one or two seconds, and a standby
/// answers heartbeats meanwhile.
pub const WARM_PAUSE_MS: u64 = 2;

/// Child SAs whose policies are reviewed in one call after the whole state was replaced, every
/// [`WARM_PAUSE_MS`]: a fraction of a millisecond.
pub const REVIEW_POLICIES_PER_ROUND: usize = 256;

/// IKE SAs loaded in one call after a takeover, for the same reason.
pub const LOAD_IKE_SAS_PER_ROUND: usize = 128;

/// IKE SAs wiped in one call after an ownership ended: a millisecond.
pub const WIPE_IKE_SAS_PER_ROUND: usize = 256;

/// Records carried on by one entry after a takeover: some kilobytes, and a millisecond or two of every
/// member that applies it, so that a grant behind it is not late. One entry is in the log at a time, so a
/// slow disk slows this down before anything else.
pub const CARRIED_PER_BATCH: usize = 1_024;

/// Time from one of these entries to the next, at least: exchanges, grants and heartbeats have most of every
/// member's time meanwhile. A hundred thousand SAs with as many IKE SAs are carried on in a second.
pub const CARRY_PAUSE_MS: u64 = 5;

/// Records that are put on hold, or deleted after their time, in one go: each is an entry of its own.
pub const HOLDS_PER_ROUND: usize = 64;

/// How long the record of an SA is kept that could not be carried on nor re-established: long enough
/// for an operator to see it, not longer than the Child SAs of a lost IKE SA may reasonably go on
/// without anybody to rekey them.
pub const HOLD_FAILED_MS: u64 = 3_600_000;

/// With every so many policies tables are published more rarely: generations share what did not
/// change, but each change copies one shard of the policies, which grows with their number.
pub const PUBLISH_POLICIES: u64 = 16_384;

/// Tables are published at most this often when many SAs change at once; a single change at once.
pub const PUBLISH_PAUSE_MS: u64 = 2;

/// How long an election may take in a handover before it counts as failed.
pub const HANDOVER_PATIENCE_MS: u64 = 2_000;

/// How long IKE exchanges under way may take to be committed before a handover is given up: nothing
/// has stopped yet, so there is time.
pub const HANDOVER_DRAIN_MS: u64 = 500;

/// How long a successor may take to answer.
pub const HANDOVER_OFFER_MS: u64 = 500;

/// How long workers may take to stop and say where: each needs a few polls; the frames that arrive
/// meanwhile wait at the successor.
pub const HANDOVER_SUSPEND_MS: u64 = 100;

/// IKE frames kept from the beginning of a handover until the workers pass frames on: milliseconds.
/// Peers repeat what is lost.
pub const HANDOVER_PUNTS_MAX: usize = 256;

/// How long a former owner passes frames on: longer than an announcement takes to reach a neighbour
/// that was busy, as long as z/OS keeps its MOVING state.
pub const MOVING_MS: u64 = 10_000;

/// How often a member says how it is when nothing changes.
pub const BULLETIN_MS: u64 = 250;

/// How often a member that warms up looks whether it is warm, and says how it is: who depends on it
/// should not wait for the next bulletin.
pub const WARMING_CHECK_MS: u64 = 25;

/// What a member said of itself is no news any more after this long: four bulletins lost.
pub const BULLETIN_STALE_MS: u64 = 1_100;

/// How long an owner whose disk failed tries to hand over before it ends: several elections.
pub const STORAGE_FAREWELL_MS: u64 = 1_000;

/// An unfit owner tries to hand over this often, when the last try failed.
pub const UNFIT_RETRY_MS: u64 = 1_000;

/// How long the workers have to list their flows.
pub const FLOW_LIST_PATIENCE_MS: u64 = 250;

/// Flow listings under way at once: each holds memory for its answer.
pub const FLOW_LISTS_MAX: usize = 8;

/// Child SAs a status shows.
pub const STATUS_CHILDREN_MAX: usize = 256;

/// SAs of each kind that a list of SAs shows: some milliseconds of the controller.
pub const SA_LIST_MAX: usize = 4_096;

/// Operator changes waiting for their commit.
pub const OPERATOR_PENDING_MAX: usize = 64;

/// How long an operator's change may wait for its commit.
pub const OPERATOR_PATIENCE_MS: u64 = 2_000;

/// First and longest pause before a target is told again who owns the common address. A notice is
/// acknowledged within a round trip; the connection repeats what the network loses.
pub const NOTICE_RETRY_MS: (u64, u64) = (50, 1_000);

/// A target that has not acknowledged for this long is a problem, and one that takes marked packets
/// only gets no new connections. Long against any takeover, so that notices on their way change no
/// connection's place.
pub const NOTICE_PATIENCE_MS: u64 = 3_000;

/// What a target said of itself is believed for this long: a few of its reports.
pub const REPORT_LIFETIME_MS: u64 = 5_000;

/// A load must fall this far below a step before the weight goes up again.
pub const LOAD_MARGIN_PERCENT: u32 = 10;

/// The secret of the marks is proposed again after this long, should the entry have been lost.
pub const MARK_SECRET_RETRY_MS: u64 = 1_000;

/// Outputs the shell may leave unfetched before punted frames are dropped unread.
pub const OUTPUTS_MAX: usize = 65_536;

/// Rounds of proposing and applying in one call; in a cluster of one each round applies what the
/// last one proposed.
pub const SETTLE_ROUNDS_MAX: usize = 1_024;

/// Paths narrower than the outside port that are remembered; each is copied with every generation of
/// tables.
pub const PATHS_MAX: usize = 4_096;

/// The narrowest path that is believed in: every host takes packets of that length (RFC 791, 3.1), and
/// less would leave little beside the headers of the tunnel.
pub const PATH_MTU_MIN: u16 = 576;

/// After so long a path may have become wider again (RFC 1191, 6.3).
pub const PATH_MEMORY_MS: u64 = 600_000;

/// SPIs of deleted Child SAs that are remembered: a peer that sends to one is told to delete its half.
pub const GONE_SPIS_MAX: usize = 4_096;

/// For so long after a Child SA is gone its last packets may still be on their way.
pub const STRAGGLERS_MS: u64 = 2_000;

/// Time between two times one peer is told that it sends to an SPI that names nothing here: what
/// provokes it is not authentic.
pub const STRAY_PAUSE_MS: u64 = 10_000;

/// Peers told so in that time, each at the price of one commit and one exchange.
pub const STRAY_PEERS_MAX: usize = 256;
