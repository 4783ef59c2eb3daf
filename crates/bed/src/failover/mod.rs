//! The bench of takeovers: how long the service is away when its owner dies, and what the same
//! failure costs with other means, in the same run on the same machine.
//!
//! ```text
//!   start all --> per round: kill Holdfast's owner, kill keepalived's master,
//!                 now and then a strongSwan gateway (DPD, ha plugin)
//!             --> handovers --> grow to 1000 SAs: kills, handovers --> grow again
//!             --> a second cluster with brisk timing: kills
//!             --> captures and logs --> parts, summaries, CSV, JSON, chart
//! ```
//!
//! Every outage is the longest gap between answers to one UDP echo a millisecond.

pub mod chart;
mod holdfast;
mod lab;
pub mod parts;
pub mod results;
mod rival;
pub mod stats;
mod swan;
mod vrrp;

use crate::demo::Progress;
use crate::error::BedError;
use crate::leftovers::folder_in;
use crate::member::{Profile, Programs};
use crate::report::Machine;
use crate::time::Wall;
use holdfast::Holdfast;
use results::{Results, System};
use rival::Rival;
use std::path::PathBuf;
use std::time::Duration;
use swan::{Gateways, Way};
use vrrp::Keepalived;

/// Kills between two of a rival that takes seconds.
const KILLS_PER_SLOW_RIVAL: usize = 8;
/// Nothing happens for so long, to tell the machine's own gaps.
const QUIET: Duration = Duration::from_secs(5);
/// With this many SAs or more, a tenth of the kills are made: each restart takes long.
const MANY_SAS: u32 = 10_000;
/// But never fewer.
const FEWEST: usize = 5;

/// What the bench is asked to do.
#[derive(Debug, Clone)]
pub struct FailoverOptions {
    /// The product.
    pub programs: Programs,
    /// The members' timing.
    pub profile: Profile,
    /// Kills of the owner for each number of SAs.
    pub kills: usize,
    /// Kills of the owner of a second cluster with one SA and `brisk` timing.
    pub brisk_kills: usize,
    /// Handovers for each number of SAs.
    pub handovers: usize,
    /// Numbers of Child SA pairs, ascending.
    pub sas: Vec<u32>,
    /// Whether the rivals are measured beside.
    pub rivals: bool,
    /// Where captures and logs are kept, if they are.
    pub keep: Option<PathBuf>,
}

/// Runs the bench. Everything made for it is gone when this returns.
///
/// # Errors
/// When the bed fails or the product does not come up. With a number of SAs that cannot be
/// reached the results say so.
pub fn run(options: &FailoverOptions, progress: &mut dyn Progress) -> Result<Results, BedError> {
    let mut results = Results {
        profile: options.profile.name().to_owned(),
        unix_s: Wall::now().0 / 1_000_000_000,
        ..Results::default()
    };
    with_cluster(options, options.profile, &mut results, progress, perform)?;
    if options.brisk_kills > 0 {
        with_cluster(options, Profile::Brisk, &mut results, progress, perform_brisk)?;
    }
    results.machine = Machine::this();
    results.summarise();
    Ok(results)
}

/// What is done to a cluster.
type Performance =
    fn(&FailoverOptions, &mut Holdfast, &mut Results, &mut dyn Progress) -> Result<(), BedError>;

/// Starts a cluster with `profile`, does `what` to it and adds what was found to `results`.
fn with_cluster(
    options: &FailoverOptions,
    profile: Profile,
    results: &mut Results,
    progress: &mut dyn Progress,
    what: Performance,
) -> Result<(), BedError> {
    progress.tell(&format!(
        "starting Holdfast, {} timing: 3 members, a strongSwan client, 1 target, a 1 kHz prober ...",
        profile.name()
    ));
    let mut holdfast = Holdfast::start(&options.programs, profile)?;
    let measured = what(options, &mut holdfast, results, progress);
    if measured.is_err() {
        progress.tell(&format!("the members' last words:\n{}", holdfast.last_words()));
    }
    if let Some(folder) = &options.keep {
        holdfast.keep(&folder.join(profile.name()))?;
    }
    measured?;
    progress.tell("reading captures and logs ...");
    holdfast.finish(results)
}

fn perform_brisk(
    options: &FailoverOptions,
    holdfast: &mut Holdfast,
    _: &mut Results,
    progress: &mut dyn Progress,
) -> Result<(), BedError> {
    for round in 0..options.brisk_kills {
        let outage_ms = holdfast.kill_owner()?;
        progress.tell(&format!("     1 SA, brisk  kill {:>3}: {outage_ms:8.1} ms", round + 1));
    }
    Ok(())
}

fn perform(
    options: &FailoverOptions,
    holdfast: &mut Holdfast,
    results: &mut Results,
    progress: &mut dyn Progress,
) -> Result<(), BedError> {
    let folder = folder_in(&std::env::temp_dir())?;
    let mut rivals = Rivals::default();
    if options.rivals {
        progress
            .tell("starting the rivals: keepalived, strongSwan by DPD and with its ha plugin ...");
        rivals = Rivals::start(folder.path())?;
    }
    results.quiet_gap_ms = holdfast.quiet_gap_ms(QUIET)?;
    progress.tell(&format!("quiet: longest gap between answers {:.1} ms", results.quiet_gap_ms));
    for &sas in &options.sas {
        match perform_with(options, holdfast, &mut rivals, sas, results, progress) {
            Ok(()) => {}
            // What was measured before is worth telling.
            Err(error) if sas >= MANY_SAS && !matches!(error, BedError::Interrupted) => {
                progress.tell(&format!("{sas} SAs cannot be measured: {error}"));
                results.skipped.push(format!("{sas} SAs: {}", first_line(&error.to_string())));
                break;
            }
            Err(error) => return Err(error),
        }
        // One comparison is enough: theirs does not depend on our SAs.
        rivals = Rivals::default();
    }
    Ok(())
}

fn perform_with(
    options: &FailoverOptions,
    holdfast: &mut Holdfast,
    rivals: &mut Rivals,
    sas: u32,
    results: &mut Results,
    progress: &mut dyn Progress,
) -> Result<(), BedError> {
    holdfast.grow_to(sas)?;
    let part = |count: usize| if sas >= MANY_SAS { (count / 10).max(FEWEST) } else { count };
    for round in 0..part(options.kills) {
        let outage_ms = holdfast.kill_owner()?;
        progress.tell(&format!("{sas:>6} SAs  kill {:>3}: {outage_ms:8.1} ms", round + 1));
        rivals.measure(round, results, progress)?;
    }
    for round in 0..part(options.handovers) {
        let outage_ms = holdfast.hand_over()?;
        progress.tell(&format!("{sas:>6} SAs  handover {:>3}: {outage_ms:.1} ms", round + 1));
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The rivals that take part.
#[derive(Default)]
struct Rivals {
    fast: Vec<(System, Box<dyn Rival>)>,
    slow: Vec<(System, Box<dyn Rival>)>,
}

impl Rivals {
    fn start(folder: &std::path::Path) -> Result<Self, BedError> {
        let gateways = |way, name: &str| Gateways::build(way, &folder.join(name)).map(Box::new);
        Ok(Self {
            fast: vec![(
                System::Keepalived,
                Box::new(Keepalived::start(&folder.join("keepalived"))?),
            )],
            slow: vec![
                (System::StrongswanDpd, gateways(Way::DeadPeerDetection, "dpd")?),
                (System::StrongswanHa, gateways(Way::HaPlugin, "ha")?),
            ],
        })
    }

    fn measure(
        &mut self,
        round: usize,
        results: &mut Results,
        progress: &mut dyn Progress,
    ) -> Result<(), BedError> {
        let slow = round.is_multiple_of(KILLS_PER_SLOW_RIVAL);
        let due = self.fast.iter_mut().chain(self.slow.iter_mut().filter(|_| slow));
        for (system, rival) in due {
            let measured = rival.measure()?;
            let title = system.title();
            progress.tell(&format!("            {title}: {:.1} ms", measured.outage_ms));
            results.add(system.clone(), u32::from(*system != System::Keepalived), measured);
        }
        Ok(())
    }
}
