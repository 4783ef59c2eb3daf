//! Notices and reports in virtual time, one target at a time.

use super::*;

const TARGET: TargetId = TargetId(1);
const FIVE: Epoch = Epoch(5);

fn notices(marked: bool, follows_load: bool) -> Notices {
    let delivery = if marked { Delivery::Marked } else { Delivery::Clear };
    Notices::new(&[TargetConfig {
        id: TARGET,
        name: "t1".into(),
        address: Ipv4Addr::new(192, 0, 2, 11),
        weight: 1,
        delivery,
        follows_load,
        member: None,
    }])
}

/// Every moment the target is told until `end`.
fn told_until(notices: &mut Notices, end: Nanos) -> Vec<u64> {
    let mut moments = Vec::new();
    while let Some(due) = notices.due().filter(|due| *due <= end) {
        if !notices.due_notices(due).is_empty() {
            moments.push(due.ms_since(Nanos::ZERO));
        }
        notices.review(due);
    }
    moments
}

#[test]
fn a_notice_is_repeated_with_growing_pauses_until_it_is_acknowledged() {
    let mut notices = notices(false, false);
    notices.hear(Nanos::ZERO, TARGET, TargetEvent::Joined);
    notices.begin(Nanos::ZERO, FIVE);
    let told = told_until(&mut notices, Nanos::from_secs(3));
    assert_eq!(told, [0, 50, 150, 350, 750, 1_550, 2_550]);
    let stale = TargetEvent::Acknowledged { epoch: Epoch(4) };
    notices.hear(Nanos::from_secs(3), TARGET, stale);
    assert_eq!(told_until(&mut notices, Nanos::from_secs(5)), [3_550, 4_550]);
    notices.hear(Nanos::from_secs(5), TARGET, TargetEvent::Acknowledged { epoch: FIVE });
    assert_eq!(notices.due(), None);
    let news = notices.news(Nanos::from_secs(5), TARGET).unwrap();
    assert_eq!(news.state, NoticeState::Acknowledged { epoch: FIVE });
}

#[test]
fn a_target_that_joins_learns_at_once_and_again_when_it_joins_again() {
    let mut notices = notices(false, false);
    notices.begin(Nanos::ZERO, FIVE);
    assert_eq!(told_until(&mut notices, Nanos::from_secs(9)), Vec::<u64>::new());
    let now = Nanos::from_secs(10);
    notices.hear(now, TARGET, TargetEvent::Joined);
    assert_eq!(notices.due_notices(now), [TARGET]);
    notices.hear(now, TARGET, TargetEvent::Acknowledged { epoch: FIVE });
    assert!(notices.due_notices(now.plus_secs(9)).is_empty());
    notices.hear(now, TARGET, TargetEvent::Left);
    notices.hear(now, TARGET, TargetEvent::Joined);
    assert_eq!(notices.due_notices(now), [TARGET]);
}

#[test]
fn a_target_that_knows_a_later_owner_is_left_alone_and_counted() {
    let mut notices = notices(true, false);
    let now = Nanos::from_secs(1);
    notices.hear(now, TARGET, TargetEvent::Joined);
    notices.begin(now, FIVE);
    assert_eq!(notices.due_notices(now), [TARGET]);
    notices.hear(now, TARGET, TargetEvent::Refused { epoch: FIVE, known: Epoch(6) });
    let news = notices.news(now, TARGET).unwrap();
    assert_eq!((news.state, news.refused), (NoticeState::Refused { known: Epoch(6) }, 1));
    assert!(notices.due_notices(now.plus_secs(60)).is_empty());
    assert!(!notices.review(now).is_empty());
    assert!(!notices.standing(TARGET).open);
}

#[test]
fn a_marked_target_that_never_acknowledges_is_overdue_and_gets_nothing_new() {
    for (marked, open) in [(true, false), (false, true)] {
        let mut notices = notices(marked, false);
        notices.hear(Nanos::ZERO, TARGET, TargetEvent::Joined);
        notices.begin(Nanos::ZERO, FIVE);
        let patience = Nanos::from_ms(limits::NOTICE_PATIENCE_MS);
        told_until(&mut notices, Nanos::from_ms(limits::NOTICE_PATIENCE_MS - 1));
        assert!(notices.standing(TARGET).open, "placement must not change in a takeover");
        assert!(!notices.news(Nanos::from_ms(1), TARGET).unwrap().overdue);
        told_until(&mut notices, patience);
        assert_eq!(notices.standing(TARGET).open, open);
        assert!(notices.news(patience, TARGET).unwrap().overdue);
        notices.hear(patience, TARGET, TargetEvent::Acknowledged { epoch: FIVE });
        notices.review(patience);
        assert!(notices.standing(TARGET).open);
    }
}

#[test]
fn without_the_program_a_clear_target_is_neither_told_nor_overdue() {
    let mut notices = notices(false, false);
    notices.begin(Nanos::ZERO, FIVE);
    assert_eq!(notices.due(), None);
    let news = notices.news(Nanos::from_secs(60), TARGET).unwrap();
    assert_eq!((news.state, news.overdue), (NoticeState::Absent, false));
}

#[test]
fn an_unhealthy_target_gets_nothing_new_until_it_is_well_or_silent() {
    let mut notices = notices(false, false);
    let sick = TargetReport { healthy: false, ..TargetReport::default() };
    notices.hear(Nanos::ZERO, TARGET, TargetEvent::Joined);
    notices.hear(Nanos::ZERO, TARGET, TargetEvent::Report(sick));
    let closed = Standing { open: false, quarters: 4 };
    assert_eq!(notices.review(Nanos::ZERO), [Change { target: TARGET, standing: closed }]);
    // What nobody says any more is not believed for ever; ARP decides then.
    let stale = notices.due().unwrap();
    assert_eq!(stale, Nanos::from_ms(limits::REPORT_LIFETIME_MS));
    notices.review(stale);
    assert!(notices.standing(TARGET).open);
}

#[test]
fn weights_follow_load_in_steps_only_where_wanted() {
    let report = |load_percent| {
        TargetEvent::Report(TargetReport { healthy: true, load_percent, ..Default::default() })
    };
    for (follows, expected) in [(true, [4, 3, 3, 1, 1, 2, 4]), (false, [4; 7])] {
        let mut notices = notices(false, follows);
        let quarters = [10, 60, 59, 120, 90, 80, 10].map(|load| {
            notices.hear(Nanos::ZERO, TARGET, report(load));
            notices.review(Nanos::ZERO);
            notices.standing(TARGET).quarters
        });
        assert_eq!(quarters, expected);
    }
}

#[test]
fn each_target_and_epoch_has_a_key_of_its_own() {
    let secret = SecretBytes::new(vec![1; 32]);
    let key = |epoch, target| mark_key(&secret, Epoch(epoch), TargetId(target)).unwrap();
    assert_eq!(key(1, 1), key(1, 1));
    assert_ne!(key(1, 1), key(2, 1));
    assert_ne!(key(1, 1), key(1, 2));
}
