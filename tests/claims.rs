//! One test for each claim, with real processes: members on hosts of their own, targets, a member
//! that is a target itself, strongSwan as the peers, captures on every link, kills and cuts.
//! Needs root; `./scripts/test claims` runs these alone.
//!
//! Each test has what the claim says, observed from outside (captures, `swanctl`, hosts' tables) or,
//! where only the product can know it, by its own tools, and beside it the controls that must fail:
//! a record that is removed, a store that is empty, a notice that is stale, half a network.
//!
//! Claim 1 names five steps, 20 the same as means of a system, 22 as code on a medium:
//!
//! | step | component of the system | code |
//! |---|---|---|
//! | (a) provide information | the owner's IKE, recorded before it answers | `ike`, `cluster`, `replica` |
//! | (b) detect the failure | the standbys' heartbeats, votes and leases | `replica`, `member::suspicion` |
//! | (c) restart, with the information | the new owner's loading and renewals | `member::{ownership, loading, renewal}` |
//! | (d) route both ways through the backup | announcements, notices, the flow table | `member::{announce, notices}`, `datapath` |
//! | (e) process both ways at the backup | ESP on the new owner's workers | `ipsec`, `crypto`, `datapath` |
//!
//! "Restart" is claimed as a new negotiation from the records: policy `reestablish`. Where a claim is
//! about carrying on, the default policy `renew` stands.
//!
//! Where Holdfast means something else than a claim's wording suggests: the common storage is the
//! replicated log, of which every member has a copy; a witness is one without anything else. Without a
//! majority of copies nobody owns the address (law 1), so "the store is down" means one copy here.

mod claim;
mod common;
