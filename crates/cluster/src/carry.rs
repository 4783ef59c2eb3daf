//! Carrying records on after a takeover, holding those that cannot be, and refusing whoever means
//! another record than there is.

use crate::effect::{Effect, Refusal};
use crate::records::{Hold, RecordName, Standing};
use crate::state::State;
use crate::{IkeSpi, Owner, limits};
use holdfast_ipsec::Spi;

impl State {
    /// Puts records under `owner` and clears them under `from`, in one entry. A hold stays: that
    /// the record has a new owner does not make its SA run.
    ///
    /// Records stand alone: one that was deleted or re-recorded meanwhile is left as it is, and
    /// only a record that stands under somebody else than both is refused.
    pub(crate) fn carry_on(
        &mut self,
        owner: Owner,
        from: Owner,
        ike_sas: &[IkeSpi],
        children: &[Spi],
    ) -> Result<Vec<Effect>, Refusal> {
        if ike_sas.len().saturating_add(children.len()) > limits::CARRIED_MAX {
            return Err(Refusal::TooLarge("the list of records"));
        }
        let ike = ike_sas.iter().map(|spi| RecordName::Ike(*spi));
        let names = ike.chain(children.iter().map(|spi| RecordName::Child(*spi)));
        let (mut carried, mut effects) = (0, Vec::new());
        for name in names {
            let Some(standing) = self.standing(name) else { continue };
            if standing.owner == from {
                let hold = standing.hold.clone();
                self.restand(name, Standing { owner, hold });
                carried += 1;
            } else if standing.owner != owner {
                effects.push(Effect::Refused(stale(name, from, standing.owner)));
            }
        }
        effects.push(Effect::CarriedOn { from, records: carried });
        Ok(effects)
    }

    /// Puts a record under `owner` with a hold, or without one.
    pub(crate) fn hold(
        &mut self,
        owner: Owner,
        record: RecordName,
        under: Owner,
        hold: Option<&Hold>,
    ) -> Result<Vec<Effect>, Refusal> {
        if hold.is_some_and(|hold| hold.reason.len() > limits::HOLD_REASON_BYTES_MAX) {
            return Err(Refusal::TooLarge("the reason"));
        }
        if self.standing(record).is_none() {
            return Err(match record {
                RecordName::Ike(spi) => Refusal::UnknownIkeSa(spi),
                RecordName::Child(spi) => Refusal::UnknownChildSa(spi),
            });
        }
        self.check_standing(record, Some(under))?;
        self.restand(record, Standing { owner, hold: hold.cloned().map(Box::new) });
        Ok(vec![Effect::Held { record, hold: hold.cloned() }])
    }

    /// Refuses a change that means a record of another ownership than the one there is. What is
    /// not there is no refusal, and `None` is how older releases wrote it.
    pub(crate) fn check_standing(
        &self,
        record: RecordName,
        under: Option<Owner>,
    ) -> Result<(), Refusal> {
        match (under, self.standing(record)) {
            (Some(named), Some(standing)) if named != standing.owner => {
                Err(stale(record, named, standing.owner))
            }
            _ => Ok(()),
        }
    }
}

fn stale(record: RecordName, named: Owner, stands: Owner) -> Refusal {
    Refusal::StaleRecord { record, named, stands }
}
