//! The run as a picture: throughput, answered probes, ownership and kills over time, as SVG and
//! for the terminal.

use crate::fetch::DownloadLog;
use crate::probe::ProbeLog;
use crate::report::Kill;
use crate::time::Wall;
use crate::wire::Announcement;
use std::fmt::Write;

/// What a picture shows.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Its left edge.
    pub start: Wall,
    /// Its right edge.
    pub end: Wall,
    /// The download.
    pub download: &'a DownloadLog,
    /// The probes.
    pub probes: &'a ProbeLog,
    /// Changes of ownership.
    pub ownership: &'a [Announcement],
    /// The kills, with their times.
    pub kills: &'a [(Wall, Kill)],
}

impl Scene<'_> {
    fn seconds(&self) -> f64 {
        self.end.s_since(self.start).max(0.1)
    }

    /// Download throughput of each of `count` equal parts of the scene, in Mbit/s.
    fn throughput_mbit_s(&self, count: usize) -> Vec<f64> {
        let bytes: Vec<u64> =
            (0..=count).map(|i| self.download.bytes_at(self.at(i, count))).collect();
        let part_s = self.seconds() / count as f64;
        let rate = |pair: &[u64]| match pair {
            [before, after] => after.saturating_sub(*before) as f64 * 8.0 / 1e6 / part_s,
            _ => 0.0,
        };
        bytes.windows(2).map(rate).collect()
    }

    /// Share of answered probes in each of `count` equal parts, `None` where none was sent.
    fn answered(&self, count: usize) -> Vec<Option<f64>> {
        let mut sent = vec![0u32; count];
        let mut answered = vec![0u32; count];
        for at in &self.probes.sent {
            bump(&mut sent, self.part(*at, count));
        }
        for (number, _) in &self.probes.answers {
            let at = self.probes.sent.get(*number as usize);
            bump(&mut answered, at.and_then(|at| self.part(*at, count)));
        }
        let share = |(s, a): (&u32, &u32)| (*s > 0).then(|| f64::from(*a) / f64::from(*s));
        sent.iter().zip(&answered).map(share).collect()
    }

    /// Answers received in each of `count` parts of `part_ms` milliseconds from `start`.
    fn answers_after(&self, start: Wall, part_ms: u64, count: usize) -> Vec<u32> {
        let mut counts = vec![0u32; count];
        for (_, at) in self.probes.answers.iter().filter(|(_, at)| *at >= start) {
            bump(&mut counts, Some((at.ms_since(start) / part_ms as f64) as usize));
        }
        counts
    }

    fn owner(&self, at: Wall) -> Option<u8> {
        self.ownership.iter().rev().find(|change| change.at <= at).map(|change| change.member)
    }

    fn at(&self, part: usize, count: usize) -> Wall {
        let span = (self.end.0 - self.start.0) as f64;
        Wall(self.start.0 + (span * part as f64 / count as f64) as u64)
    }

    fn part(&self, at: Wall, count: usize) -> Option<usize> {
        let within = at >= self.start && at < self.end;
        let share = (at.0.saturating_sub(self.start.0)) as f64 / (self.end.0 - self.start.0) as f64;
        within.then_some((share * count as f64) as usize)
    }
}

fn bump(counts: &mut [u32], part: Option<usize>) {
    if let Some(count) = part.and_then(|i| counts.get_mut(i)) {
        *count += 1;
    }
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 92.0;
const GRAPH_HEIGHT: f64 = 210.0;
const PROBES_TOP: f64 = TOP + GRAPH_HEIGHT + 34.0;
const PROBES_HEIGHT: f64 = 46.0;
const OWNER_TOP: f64 = PROBES_TOP + PROBES_HEIGHT + 26.0;
const OWNER_HEIGHT: f64 = 22.0;
const ZOOM_TOP: f64 = OWNER_TOP + OWNER_HEIGHT + 62.0;
const ZOOM_HEIGHT: f64 = 60.0;
const HEIGHT: f64 = ZOOM_TOP + ZOOM_HEIGHT + 36.0;
/// Kills that are magnified; the figures of the others stand beside their marks.
const ZOOMED_KILLS: usize = 3;
const ZOOM_GAP: f64 = 28.0;
/// What a magnified kill shows: from a little before it until after any good recovery.
const ZOOM_FROM_MS: u64 = 50;
const ZOOM_SPAN_MS: u64 = 350;
/// Milliseconds of a bar in a magnified kill.
const ZOOM_BAR_MS: u64 = 5;
const PARTS: usize = 420;

const STYLE: &str = "<style>
svg{background:#fff;color:#1c2733;font:12px system-ui,sans-serif}
text{fill:currentColor}.quiet{opacity:.65}.title{font-size:17px;font-weight:600}
.grid{stroke:currentColor;opacity:.14}.rate{fill:#2f7fd6;fill-opacity:.25;stroke:#2f7fd6;stroke-width:1.4}
.good{fill:#2f9e63}.lost{fill:#d64545}rect{shape-rendering:crispEdges}.kill{stroke:#d64545;stroke-width:1.4;stroke-dasharray:4 3}
.killtext{fill:#d64545;font-weight:600}.m1{fill:#4c78a8}.m2{fill:#e0913a}.m3{fill:#6a9f58}.m4{fill:#9467bd}
.band{fill:#fff;font-weight:600}
@media(prefers-color-scheme:dark){svg{background:#12181f;color:#dbe4ee}}
</style>";

/// Draws the scene as SVG.
pub fn svg(scene: &Scene<'_>, title: &str, subtitle: &str) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n<title>{title}</title>\n{STYLE}\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">{title}</text>\n\
         <text class=\"quiet\" x=\"{LEFT}\" y=\"47\">{subtitle}</text>\n"
    );
    let rates = scene.throughput_mbit_s(PARTS);
    let top_rate = nice_ceiling(rates.iter().copied().fold(1.0, f64::max));
    draw_axes(&mut out, scene, top_rate);
    draw_rate(&mut out, &rates, top_rate);
    draw_probes(&mut out, &scene.answered(PARTS));
    draw_ownership(&mut out, scene);
    draw_kills(&mut out, scene);
    draw_zooms(&mut out, scene);
    out.push_str("</svg>\n");
    out
}

fn x_of(scene: &Scene<'_>, at: Wall) -> f64 {
    let share = at.s_since(scene.start) / scene.seconds();
    LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

fn draw_axes(out: &mut String, scene: &Scene<'_>, top_rate: f64) {
    for quarter in 0..=4 {
        let y = TOP + GRAPH_HEIGHT * f64::from(4 - quarter) / 4.0;
        let label = top_rate * f64::from(quarter) / 4.0;
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"quiet\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let step = if scene.seconds() > 90.0 { 20 } else { 10 };
    for second in (0..=scene.seconds() as u64).step_by(step) {
        let x = x_of(scene, scene.start.plus_ms(second * 1000));
        let _ = writeln!(
            out,
            "<text class=\"quiet\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            OWNER_TOP + OWNER_HEIGHT + 20.0
        );
    }
    for (label, y) in [
        ("download through the tunnel, Mbit/s", TOP - 22.0),
        ("answers to 1000 probes a second (red: lost)", PROBES_TOP - 8.0),
        ("owner of the common address, by its announcements on the wire", OWNER_TOP - 8.0),
    ] {
        let _ = writeln!(out, "<text class=\"quiet\" x=\"{LEFT}\" y=\"{y:.1}\">{label}</text>");
    }
}

fn draw_rate(out: &mut String, rates: &[f64], top_rate: f64) {
    let bottom = TOP + GRAPH_HEIGHT;
    let step = (WIDTH - LEFT - RIGHT) / rates.len().max(1) as f64;
    let mut path = format!("M{LEFT} {bottom:.1}");
    for (i, rate) in rates.iter().enumerate() {
        let y = bottom - GRAPH_HEIGHT * (rate / top_rate).min(1.0);
        let _ = write!(path, " L{:.1} {y:.1}", LEFT + step * (i as f64 + 0.5));
    }
    let _ =
        writeln!(out, "<path class=\"rate\" d=\"{path} L{:.1} {bottom:.1} Z\"/>", WIDTH - RIGHT);
}

fn draw_probes(out: &mut String, answered: &[Option<f64>]) {
    let step = (WIDTH - LEFT - RIGHT) / answered.len().max(1) as f64;
    for (i, share) in answered.iter().enumerate() {
        let Some(share) = share else { continue };
        let x = LEFT + step * i as f64;
        let good = PROBES_HEIGHT * share;
        let lost = PROBES_HEIGHT - good;
        let _ = write!(
            out,
            "<rect class=\"good\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{step:.2}\" height=\"{good:.1}\"/>",
            PROBES_TOP + lost
        );
        if lost > 0.0 {
            let _ = write!(
                out,
                "<rect class=\"lost\" x=\"{x:.1}\" y=\"{PROBES_TOP:.1}\" width=\"{step:.2}\" \
                 height=\"{lost:.1}\"/>"
            );
        }
    }
    out.push('\n');
}

fn draw_ownership(out: &mut String, scene: &Scene<'_>) {
    for (i, change) in scene.ownership.iter().enumerate() {
        let from = x_of(scene, change.at);
        let to = scene.ownership.get(i + 1).map_or(WIDTH - RIGHT, |next| x_of(scene, next.at));
        let member = change.member;
        let _ = writeln!(
            out,
            "<rect class=\"m{member}\" x=\"{from:.1}\" y=\"{OWNER_TOP:.1}\" width=\"{:.1}\" \
             height=\"{OWNER_HEIGHT}\"/><text class=\"band\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">member {member}</text>",
            (to - from).max(1.0),
            f64::midpoint(from, to),
            OWNER_TOP + 15.0
        );
    }
}

fn draw_kills(out: &mut String, scene: &Scene<'_>) {
    for (at, kill) in scene.kills {
        let x = x_of(scene, *at);
        let _ = writeln!(
            out,
            "<line class=\"kill\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"killtext\" x=\"{:.1}\" y=\"{:.1}\">kill -9 member {}: {:.0} ms</text>",
            TOP - 8.0,
            OWNER_TOP + OWNER_HEIGHT,
            x + 5.0,
            TOP - 2.0,
            kill.killed,
            kill.outage_ms
        );
    }
}

fn draw_zooms(out: &mut String, scene: &Scene<'_>) {
    let shown = scene.kills.len().clamp(1, ZOOMED_KILLS) as f64;
    let width = (WIDTH - LEFT - RIGHT - ZOOM_GAP * (shown - 1.0)) / shown;
    for (index, (at, kill)) in scene.kills.iter().take(ZOOMED_KILLS).enumerate() {
        let left = LEFT + index as f64 * (width + ZOOM_GAP);
        let title = format!("kill {}: answers around it", index + 1);
        draw_zoom(out, scene, *at, (left, width), &title);
        let x = left + width * ZOOM_FROM_MS as f64 / ZOOM_SPAN_MS as f64;
        let _ = writeln!(
            out,
            "<line class=\"kill\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"quiet\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">kill</text>\
             <text class=\"quiet\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">+{} ms; \
             {} of {} probes lost</text>",
            ZOOM_TOP - 4.0,
            ZOOM_TOP + ZOOM_HEIGHT,
            ZOOM_TOP + ZOOM_HEIGHT + 16.0,
            left + width,
            ZOOM_TOP + ZOOM_HEIGHT + 16.0,
            ZOOM_SPAN_MS - ZOOM_FROM_MS,
            kill.probes_lost,
            kill.probes_sent,
        );
    }
}

/// Bars of the answers that came in each few milliseconds around a kill, in `(left, width)`.
fn draw_zoom(out: &mut String, scene: &Scene<'_>, kill: Wall, place: (f64, f64), title: &str) {
    let (left, width) = place;
    let count = (ZOOM_SPAN_MS / ZOOM_BAR_MS) as usize;
    let answers = scene.answers_after(kill.minus_ms(ZOOM_FROM_MS), ZOOM_BAR_MS, count);
    let _ = writeln!(
        out,
        "<text class=\"quiet\" x=\"{left:.1}\" y=\"{:.1}\">{title}</text>",
        ZOOM_TOP - 10.0
    );
    let step = width / count as f64;
    for (i, answered) in answers.iter().enumerate().filter(|(_, answered)| **answered > 0) {
        let height = ZOOM_HEIGHT * (f64::from(*answered) / ZOOM_BAR_MS as f64).min(1.0);
        let _ = write!(
            out,
            "<rect class=\"good\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{height:.1}\"/>",
            left + step * i as f64,
            ZOOM_TOP + ZOOM_HEIGHT - height,
            step * 0.85,
        );
    }
    let _ = writeln!(
        out,
        "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
        left + width,
        y = ZOOM_TOP + ZOOM_HEIGHT
    );
}

/// The next readable multiple of a power of ten, so that the axis has readable figures.
fn nice_ceiling(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(10.0 * power)
}

/// Columns and rows of the terminal drawing.
const COLUMNS: usize = 72;
const ROWS: usize = 6;
/// Eighths of a character cell.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Milliseconds a character of the magnified kill covers.
const ZOOM_MS: u64 = 5;
const ZOOM_BEFORE_MS: u64 = 50;

/// Draws the scene with characters, 80 columns wide.
pub fn terminal(scene: &Scene<'_>) -> String {
    let rates = scene.throughput_mbit_s(COLUMNS);
    let top = nice_ceiling(rates.iter().copied().fold(1.0, f64::max));
    let mut out = String::from("  download through the tunnel, Mbit/s\n");
    for row in (0..ROWS).rev() {
        let label = if row + 1 == ROWS { format!("{top:>5.0}") } else { " ".repeat(5) };
        let cell = |rate: &f64| {
            let eighths = rate / top * (ROWS * 8) as f64 - (row * 8) as f64;
            EIGHTHS[(eighths.round().clamp(0.0, 8.0)) as usize]
        };
        let _ = writeln!(out, "{label} |{}", rates.iter().map(cell).collect::<String>());
    }
    let parts = scene.answered(COLUMNS);
    let probes = parts.iter().map(|share| match share {
        None => ' ',
        Some(share) if *share >= 1.0 => '.',
        Some(_) => 'x',
    });
    let owner = (0..COLUMNS).map(|i| {
        let owner = scene.owner(scene.at(i + 1, COLUMNS));
        owner.map_or(' ', |member| char::from_digit(u32::from(member), 10).unwrap_or('?'))
    });
    let kills = kill_marks(scene);
    let _ = writeln!(out, "kills  {}", kills.trim_end());
    let _ = writeln!(out, "probes {}   . all answered  x some lost", probes.collect::<String>());
    let _ = writeln!(out, "owner  {}", owner.collect::<String>());
    let _ = writeln!(out, "       0 s{:>width$.0} s", scene.seconds(), width = COLUMNS - 5);
    for (index, (at, kill)) in scene.kills.iter().enumerate() {
        let _ = writeln!(
            out,
            "\n  kill {}: member {} at |, {ZOOM_MS} ms a character, height: answers",
            index + 1,
            kill.killed
        );
        let _ = writeln!(out, "       {}", zoom(scene, *at));
    }
    out
}

fn kill_marks(scene: &Scene<'_>) -> String {
    let mut marks = vec![' '; COLUMNS];
    for (at, _) in scene.kills {
        if let Some(mark) = scene.part(*at, COLUMNS).and_then(|i| marks.get_mut(i)) {
            *mark = '!';
        }
    }
    marks.into_iter().collect()
}

/// Answers received around a kill, one character for some milliseconds.
fn zoom(scene: &Scene<'_>, kill: Wall) -> String {
    let counts = scene.answers_after(kill.minus_ms(ZOOM_BEFORE_MS), ZOOM_MS, COLUMNS);
    let mut drawn: Vec<char> = counts
        .iter()
        .map(|&count| match count {
            0 => '·',
            _ => EIGHTHS[(count as usize * 8 / ZOOM_MS as usize).clamp(1, 8)],
        })
        .collect();
    drawn.insert((ZOOM_BEFORE_MS / ZOOM_MS) as usize, '|');
    drawn.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Wall {
        Wall::default().plus_ms(ms)
    }

    fn scene_parts() -> (DownloadLog, ProbeLog, Vec<Announcement>, Vec<(Wall, Kill)>) {
        let progress = (0..10_000u64)
            .filter(|ms| !(4000..4100).contains(ms))
            .map(|ms| (at(ms), ms * 1000))
            .collect();
        let download = DownloadLog { progress, ..DownloadLog::default() };
        let sent: Vec<Wall> = (0..10_000).map(at).collect();
        let answers = (0..10_000u32)
            .filter(|number| !(4000..4050).contains(number))
            .map(|number| (number, at(u64::from(number))))
            .collect();
        let ownership =
            vec![Announcement { at: at(0), member: 1 }, Announcement { at: at(4040), member: 2 }];
        let kill = Kill { killed: 1, outage_ms: 50.0, ..Kill::default() };
        (download, ProbeLog { sent, answers }, ownership, vec![(at(4000), kill)])
    }

    fn with_scene<T>(check: impl FnOnce(&Scene<'_>) -> T) -> T {
        let (download, probes, ownership, kills) = scene_parts();
        check(&Scene {
            start: at(0),
            end: at(10_000),
            download: &download,
            probes: &probes,
            ownership: &ownership,
            kills: &kills,
        })
    }

    #[test]
    fn throughput_and_answers_fall_into_their_parts() {
        with_scene(|scene| {
            let rates = scene.throughput_mbit_s(10);
            assert!((7.9..8.1).contains(&rates[2]), "{rates:?}");
            let answered = scene.answered(10);
            assert_eq!(answered[4], Some(0.95));
            assert_eq!(answered[5], Some(1.0));
        });
    }

    #[test]
    fn the_svg_is_one_element_and_names_kill_and_owners() {
        let drawn = with_scene(|scene| svg(scene, "title", "subtitle"));
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
        for part in ["kill -9 member 1: 50 ms", ">member 1<", ">member 2<", "class=\"lost\""] {
            assert!(drawn.contains(part), "{part} is missing");
        }
    }

    #[test]
    fn the_terminal_drawing_shows_owner_and_silence_within_80_columns() {
        let drawn = with_scene(terminal);
        assert!(drawn.contains("11111222222"), "{drawn}");
        assert!(drawn.contains("|··········"), "{drawn}");
        let graph = drawn.lines().filter(|line| !line.starts_with("probes"));
        assert!(graph.map(|line| line.chars().count()).max() <= Some(80), "{drawn}");
    }

    #[test]
    fn axes_end_on_readable_figures() {
        assert_eq!([nice_ceiling(36.0), nice_ceiling(1.0), nice_ceiling(95.0)], [40.0, 1.0, 100.0]);
    }
}
