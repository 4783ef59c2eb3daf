//! What the rivals have in common.

use super::results::Measured;
use crate::error::BedError;
use crate::probe::Prober;
use crate::time::{Wall, rounded};
use crate::wait::{let_pass, wait_until};
use std::time::Duration;

/// A recovery that takes longer is put down as it stands.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// Answers after which service counts as back.
const RECOVERED_ANSWERS: u64 = 100;
/// A little before the failure, so that the gap's begin is seen.
const BEFORE_MS: u64 = 50;

/// Something that fails over, again and again.
pub(crate) trait Rival {
    /// Kills who serves, waits for the recovery, restores redundancy.
    fn measure(&mut self) -> Result<Measured, BedError>;
}

/// Waits until `prober` is answered again after the failure at `at`, and tells the outage.
pub(crate) fn recover(prober: &Prober, at: Wall) -> Result<Measured, BedError> {
    // Answers on their way at the failure must not count.
    let_pass(Duration::from_millis(20))?;
    let before = prober.answered();
    let back = wait_until("answers after the failure", RECOVERY_LIMIT, || {
        Ok((prober.answered() > before + RECOVERED_ANSWERS).then_some(()))
    });
    match back {
        Ok(()) | Err(BedError::Timeout { .. }) => {}
        Err(other) => return Err(other),
    }
    let end = Wall::now();
    let outage = prober.log().outage(at.minus_ms(BEFORE_MS), end);
    Ok(Measured {
        at,
        outage_ms: rounded(outage.outage_ms),
        probes_lost: outage.probes_lost,
        longest_send_gap_ms: rounded(outage.longest_send_gap_ms),
        recovered: back.is_ok(),
        ..Measured::default()
    })
}
