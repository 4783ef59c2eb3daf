use super::*;
use std::collections::BTreeMap;

fn spi(number: u32) -> Spi {
    Spi::new(256 + number).unwrap()
}

fn inherited(count: u32, policy: TakeoverPolicy) -> impl Iterator<Item = Inherited> {
    (0..count).map(move |number| Inherited {
        spi: spi(number),
        ike: IkeSpi(u64::from(number)),
        policy,
        active: false,
        known_to_peer: true,
    })
}

fn took_over(now: Nanos, inherited: impl Iterator<Item = Inherited>, seed: u64) -> Renewals {
    let mut renewals = Renewals::begin(seed);
    inherited.for_each(|child| renewals.inherit(now, child));
    renewals
}

fn takeover(count: u32, policy: TakeoverPolicy) -> Renewals {
    took_over(Nanos::ZERO, inherited(count, policy), 7)
}

#[test]
fn an_ambiguous_sa_goes_first_and_only_once() {
    let mut renewals = takeover(3, TakeoverPolicy::Renew);
    renewals.ambiguous(spi(1), 10);
    renewals.ambiguous(spi(1), 11);
    assert_eq!(renewals.continuity(spi(1)), Continuity::Waiting);
    assert_eq!(renewals.due(), Some(Nanos::ZERO));
    let (subject, policy) = (Subject::Child(spi(1)), TakeoverPolicy::Renew);
    assert_eq!(renewals.next(Nanos::ZERO), [Renewal { subject, policy, urgent: true }]);
    renewals.ambiguous(spi(1), 12);
    assert_eq!(renewals.next(Nanos::from_ms(100)), []);
    assert_eq!(renewals.continuity(spi(1)), Continuity::Renewing);
}

#[test]
fn strict_waits_and_shows_who_is_in_the_zone() {
    let mut renewals = takeover(3, TakeoverPolicy::Strict);
    renewals.ambiguous(spi(1), 10);
    assert_eq!(renewals.due(), None);
    assert_eq!(renewals.census(), Census { ambiguous: 1, ..Census::default() });
    assert_eq!(renewals.continuity(spi(1)), Continuity::Ambiguous);
    renewals.moved_on(spi(1));
    assert_eq!(renewals.continuity(spi(1)), Continuity::Certain);
    assert_eq!(renewals.continuity(spi(2)), Continuity::Silent);
}

#[test]
fn what_moves_on_by_itself_is_left_alone() {
    let active = inherited(2, TakeoverPolicy::Renew).map(|sa| Inherited { active: true, ..sa });
    let mut renewals = took_over(Nanos::ZERO, active, 7);
    renewals.moved_on(spi(0));
    let (_, last_ms) = limits::ACTIVE_RENEWAL_MS;
    let begun = renewals.next(Nanos::from_ms(last_ms));
    assert_eq!(begun.iter().map(|r| r.subject).collect::<Vec<_>>(), [Subject::Child(spi(1))]);
    assert_eq!(renewals.due(), None);
}

#[test]
fn a_failed_renewal_is_tried_again_ever_more_rarely_and_given_up_visibly() {
    let mut renewals = takeover(1, TakeoverPolicy::Reestablish);
    let mut moments = Vec::new();
    while let Some(due) = renewals.due() {
        for renewal in renewals.next(due) {
            moments.push(due.ms());
            renewals.failed(due, renewal.subject);
            assert_eq!(renewals.continuity(spi(0)), Continuity::Failed);
        }
    }
    assert_eq!(moments.len(), limits::RENEWAL_ATTEMPTS_MAX as usize);
    let waits: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait_ms, doubled) in waits.iter().zip(1..) {
        let least_ms = limits::RENEWAL_RETRY_MS << doubled;
        assert!((least_ms..2 * least_ms + 10).contains(wait_ms), "{waits:?}");
    }
    assert_eq!(renewals.census(), Census { failed: 1, ..Census::default() });
}

#[test]
fn a_peer_that_cannot_sync_is_rekeyed_instead() {
    let mut renewals = takeover(2, TakeoverPolicy::Sync);
    renewals.ambiguous(spi(0), 5);
    let begun = renewals.next(Nanos::ZERO);
    assert_eq!(begun[0].subject, Subject::Ike(IkeSpi(0)));
    renewals.fall_back(Nanos::ZERO, begun[0].subject);
    let (subject, policy) = (Subject::Child(spi(0)), TakeoverPolicy::Renew);
    let later = Nanos::from_ms(limits::RENEWAL_ROUND_MS);
    assert_eq!(renewals.next(later), [Renewal { subject, policy, urgent: true }]);
}

#[test]
fn silent_sas_are_renewed_within_minutes_and_spread() {
    let mut renewals = takeover(50, TakeoverPolicy::Renew);
    renewals.moved_on(spi(0));
    let mut moments = Vec::new();
    while let Some(due) = renewals.due() {
        for renewal in renewals.next(due) {
            assert!(!renewal.urgent);
            moments.push(due.ms());
            renewals.finished(renewal.subject);
        }
    }
    assert_eq!(moments.len(), 49);
    let (first_ms, last_ms) = limits::IDLE_RENEWAL_MS;
    assert!(moments.iter().all(|ms| (first_ms..=last_ms + 100).contains(ms)), "{moments:?}");
    let spread = moments.iter().max().unwrap() - moments.iter().min().unwrap();
    assert!(spread > (last_ms - first_ms) / 2, "{spread} ms");
}

/// Ten thousand peers after a takeover. Each answers after a round trip of 20 ms, but every third does
/// not answer at all; every fourth is heard in the ambiguous zone at a moment of its own.
struct Crowd {
    renewals: Renewals,
    answers: BTreeMap<(Nanos, Subject), bool>,
    begun: BTreeMap<Subject, Nanos>,
    outstanding_max: usize,
    per_100_ms: BTreeMap<u64, usize>,
}

const CROWD: u32 = 10_000;
const ROUND_TRIP_MS: u64 = 20;
const GIVEN_UP_MS: u64 = 30_000;

fn number(subject: Subject) -> u32 {
    match subject {
        Subject::Child(spi) => spi.get() - 256,
        Subject::Ike(IkeSpi(number)) => u32::try_from(number).unwrap(),
    }
}

fn is_dead(number: u32) -> bool {
    number.is_multiple_of(3)
}

impl Crowd {
    fn run(policy: TakeoverPolicy, end: Nanos) -> Self {
        let mut crowd = Self {
            renewals: takeover(CROWD, policy),
            answers: BTreeMap::new(),
            begun: BTreeMap::new(),
            outstanding_max: 0,
            per_100_ms: BTreeMap::new(),
        };
        let mut heard: BTreeMap<(Nanos, u32), ()> = (0..CROWD)
            .filter(|number| number % 4 == 1 && !is_dead(*number))
            .map(|number| ((heard_at(number), number), ()))
            .collect();
        loop {
            let due = crowd.renewals.due();
            let answer = crowd.answers.first_key_value().map(|((at, _), _)| *at);
            let spoken = heard.first_key_value().map(|((at, _), ())| *at);
            let next = [due, answer, spoken].into_iter().flatten().min();
            let Some(now) = next.filter(|now| *now <= end) else { return crowd };
            if spoken == Some(now) {
                let ((_, number), ()) = heard.pop_first().unwrap();
                crowd.renewals.ambiguous(spi(number), 1);
            } else if answer == Some(now) {
                let ((_, subject), well) = crowd.answers.pop_first().unwrap();
                match well {
                    true => crowd.renewals.removed(spi(number(subject))),
                    false => crowd.renewals.failed(now, subject),
                }
            } else {
                crowd.begin(now);
            }
        }
    }

    fn begin(&mut self, now: Nanos) {
        for renewal in self.renewals.next(now) {
            let dead = is_dead(number(renewal.subject));
            let wait_ms = if dead { GIVEN_UP_MS } else { ROUND_TRIP_MS };
            self.answers.insert((now.plus_ms(wait_ms), renewal.subject), !dead);
            self.begun.entry(renewal.subject).or_insert(now);
            *self.per_100_ms.entry(now.ms() / 100).or_default() += 1;
        }
        self.outstanding_max = self.outstanding_max.max(self.renewals.queue.outstanding());
    }
}

/// Everybody who speaks does so within the first second.
fn heard_at(number: u32) -> Nanos {
    Nanos::from_ms(mix(9, u64::from(number)) % 1_000)
}

#[test]
fn ten_thousand_peers_do_not_storm_and_none_is_forgotten() {
    for policy in [TakeoverPolicy::Renew, TakeoverPolicy::Sync, TakeoverPolicy::Reestablish] {
        let crowd = Crowd::run(policy, Nanos::from_secs(1_200));
        assert!(crowd.outstanding_max <= limits::RENEWALS_OUTSTANDING_MAX, "{policy:?}");
        let rate_max = crowd.per_100_ms.values().max().copied().unwrap();
        let rounds = 100 / usize::try_from(limits::RENEWAL_ROUND_MS).unwrap() + 1;
        assert!(rate_max <= rounds * limits::RENEWALS_PER_ROUND_MAX, "{policy:?}: {rate_max}");
        assert_eq!(crowd.begun.len(), CROWD as usize, "{policy:?}: everybody has a turn");

        let mut waits: Vec<u64> = crowd
            .begun
            .iter()
            .filter(|(subject, _)| number(**subject) % 4 == 1 && !is_dead(number(**subject)))
            .map(|(subject, at)| at.ms_since(heard_at(number(*subject))))
            .collect();
        waits.sort_unstable();
        let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        println!("{policy:?}: heard peers wait {median} ms (median), {longest} ms at most");
        assert!(
            longest <= 4_000,
            "{policy:?}: {longest} ms, the dead must not keep the living waiting"
        );
        let failed = crowd.renewals.census().failed;
        assert_eq!(failed, (0..CROWD).filter(|n| is_dead(*n)).count(), "{policy:?}: shown");
    }
}
