//! The member's events as lines of the log, with fields.

use holdfast_member::MemberEvent;

/// Writes one event. Changes of ownership and what needs a person are warnings.
pub(super) fn log(event: &MemberEvent) {
    match event {
        MemberEvent::OwnershipTaken { owner, previous, child_sas } => tracing::warn!(
            event = "ownership_taken",
            member = owner.member.0,
            incarnation = owner.incarnation.0,
            epoch = owner.epoch.0,
            previous = previous.map(|owner| owner.member.0),
            child_sas,
            "{event}"
        ),
        MemberEvent::OwnershipLost { owner, .. } => tracing::warn!(
            event = "ownership_lost",
            member = owner.member.0,
            epoch = owner.epoch.0,
            "{event}"
        ),
        MemberEvent::OwnerChanged { owner } => tracing::info!(
            event = "owner_changed",
            member = owner.member.0,
            epoch = owner.epoch.0,
            "{event}"
        ),
        MemberEvent::OwnerFailed { owner, cause, detected_in_ms } => tracing::warn!(
            event = "owner_failed",
            member = owner.member.0,
            epoch = owner.epoch.0,
            cause = cause.name(),
            detected_in_ms,
            "{event}"
        ),
        MemberEvent::NoSuccessor { address, missing } => tracing::warn!(
            event = "no_successor",
            address = %address,
            missing,
            "{event}"
        ),
        MemberEvent::SuccessorReady { address, ready } => tracing::info!(
            event = "successor_ready",
            address = %address,
            ready,
            "{event}"
        ),
        MemberEvent::LeaderChanged { term, leader } => tracing::info!(
            event = "leader_changed",
            term,
            leader = leader.map(|leader| leader.0),
            "{event}"
        ),
        MemberEvent::SaEstablished { spi, ike, connection, peer } => tracing::info!(
            event = "sa_established",
            spi = %spi,
            ike_spi = %ike,
            connection,
            peer = %peer,
            "{event}"
        ),
        MemberEvent::SaRemoved { spi } => {
            tracing::info!(event = "sa_removed", spi = %spi, "{event}");
        }
        MemberEvent::SaRenewing { spi, urgent } => {
            tracing::info!(event = "sa_renewing", spi = %spi, urgent, "{event}");
        }
        MemberEvent::SequenceEnd { spi } => {
            tracing::warn!(event = "sequence_end", spi = %spi, "{event}");
        }
        MemberEvent::TargetUp { target, mac } => {
            tracing::info!(event = "target_up", target_id = target.0, mac = %mac, "{event}");
        }
        MemberEvent::TargetDown { target } => {
            tracing::warn!(event = "target_down", target_id = target.0, "{event}");
        }
        MemberEvent::TargetDraining { target, draining } => {
            tracing::info!(event = "target_draining", target_id = target.0, draining, "{event}");
        }
        MemberEvent::TargetStanding { target, open, quarters } => tracing::info!(
            event = "target_standing",
            target_id = target.0,
            open,
            quarters,
            "{event}"
        ),
        MemberEvent::TargetAcknowledged { target, epoch } => tracing::info!(
            event = "target_acknowledged",
            target_id = target.0,
            epoch = epoch.0,
            "{event}"
        ),
        MemberEvent::TargetRefused { target, epoch, known } => tracing::warn!(
            event = "target_refused",
            target_id = target.0,
            epoch = epoch.0,
            known_epoch = known.0,
            "{event}"
        ),
        MemberEvent::AddressClaimed { address, by, .. } => {
            tracing::warn!(event = "address_claimed", address = %address, by = %by, "{event}");
        }
        MemberEvent::HandoverStarted { to, .. } => {
            tracing::info!(event = "handover_started", to = to.0, "{event}");
        }
        MemberEvent::HandoverFailed { to, .. } => {
            tracing::warn!(event = "handover_failed", to = to.0, "{event}");
        }
        MemberEvent::HandoverDone { owner, took_us, passed_on_us, frames } => {
            tracing::info!(
                event = "handover_done",
                to = owner.member.0,
                took_us,
                passed_on_us,
                frames,
                "{event}"
            );
        }
        MemberEvent::PeerMessageRefused { from, .. } => {
            tracing::warn!(event = "peer_message_refused", from = from.0, "{event}");
        }
        MemberEvent::LeaseRegained => tracing::info!(event = "lease_regained", "{event}"),
        other => tracing::warn!(event = "member", "{other}"),
    }
}
