//! The bench as a picture: every single outage as a dot on a logarithmic axis, and where the time
//! of Holdfast's takeovers goes.

use super::results::{Results, Series, System};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 96.0;
const ROW: f64 = 54.0;
const DOT: f64 = 3.0;
const PARTS_ROW: f64 = 34.0;
const PARTS_BAR: f64 = 18.0;
/// About how wide a character of the smaller text is.
const CHARACTER: f64 = 6.2;
/// The axis' ends in milliseconds.
const FROM_MS: f64 = 1.0;

const STYLE: &str = "<style>
svg{background:#fff;color:#1c2733;font:12px system-ui,sans-serif}
text{fill:currentColor}.quiet{opacity:.65}.title{font-size:17px;font-weight:600}.name{font-weight:600}
.grid{stroke:currentColor;opacity:.14}.fine{stroke:currentColor;opacity:.06}
.ours{fill:#2f7fd6}.planned{fill:#2f9e63}.theirs{fill:#c2603a}.dot{fill-opacity:.45}
.median{stroke:currentColor;stroke-width:2}
.p0{fill:#4c78a8}.p1{fill:#e0913a}.p2{fill:#6a9f58}.p3{fill:#9467bd}.p4{fill:#c2603a}
@media(prefers-color-scheme:dark){svg{background:#12181f;color:#dbe4ee}}
</style>";

/// Draws the results as SVG.
pub fn svg(results: &Results) -> String {
    let with_parts: Vec<&Series> =
        results.series.iter().filter(|series| !series.parts.is_empty()).collect();
    let parts_top = TOP + ROW * results.series.len() as f64 + 92.0;
    let height = parts_top + PARTS_ROW * with_parts.len() as f64 + 40.0;
    let machine = &results.machine;
    let title = "How long the service is away";
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{title}</title>\n{STYLE}\n\
         <rect width=\"100%\" height=\"100%\" fill=\"none\"/>\
         <text class=\"title\" x=\"24\" y=\"30\">{title}</text>\n\
         <text class=\"quiet\" x=\"24\" y=\"50\">longest gap between answers to one probe a \
         millisecond, each dot one failure; {} timing, one run</text>\n\
         <text class=\"quiet\" x=\"24\" y=\"66\">{} x {}, kernel {}; nothing done to anybody: \
         longest gap {:.0} ms</text>\n",
        results.profile,
        machine.cpus,
        escaped(&machine.cpu_model),
        escaped(&machine.kernel),
        results.quiet_gap_ms
    );
    let axis = Axis::for_results(results);
    axis.draw(&mut out, TOP + ROW * results.series.len() as f64);
    for (index, series) in results.series.iter().enumerate() {
        draw_row(&mut out, &axis, results, series, TOP + ROW * index as f64);
    }
    draw_parts(&mut out, &with_parts, parts_top);
    out.push_str("</svg>\n");
    out
}

/// A logarithmic axis of milliseconds.
struct Axis {
    to_ms: f64,
}

impl Axis {
    fn for_results(results: &Results) -> Self {
        let longest = results.rows.iter().map(|row| row.measured.outage_ms).fold(10.0, f64::max);
        let mut to_ms = 100.0;
        while to_ms < longest {
            to_ms *= 10.0;
        }
        Self { to_ms }
    }

    fn x(&self, ms: f64) -> f64 {
        let share = (ms.max(FROM_MS) / FROM_MS).log10() / (self.to_ms / FROM_MS).log10();
        LEFT + share.min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, out: &mut String, bottom: f64) {
        let mut decade = FROM_MS;
        while decade <= self.to_ms {
            let x = self.x(decade);
            let label = if decade < 1000.0 {
                format!("{decade:.0} ms")
            } else {
                format!("{:.0} s", decade / 1000.0)
            };
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"quiet\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                TOP - 6.0,
                bottom + 16.0
            );
            for step in 2..10 {
                let fine = self.x(decade * f64::from(step));
                if decade * f64::from(step) < self.to_ms {
                    let _ = write!(
                        out,
                        "<line class=\"fine\" x1=\"{fine:.1}\" x2=\"{fine:.1}\" y1=\"{:.1}\" \
                         y2=\"{bottom:.1}\"/>",
                        TOP - 6.0
                    );
                }
            }
            out.push('\n');
            decade *= 10.0;
        }
        let _ = writeln!(
            out,
            "<text class=\"quiet\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">outage, \
             logarithmic</text>",
            WIDTH - RIGHT,
            bottom + 34.0
        );
    }
}

fn draw_row(out: &mut String, axis: &Axis, results: &Results, series: &Series, top: f64) {
    let sas = match (&series.system, series.sas) {
        (System::Keepalived, _) => String::new(),
        (_, 1) => "1 SA pair, ".to_owned(),
        (_, sas) => format!("{sas} SA pairs, "),
    };
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"24\" y=\"{:.1}\">{}</text>\
         <text class=\"quiet\" x=\"24\" y=\"{:.1}\">{sas}{}</text>",
        top + 18.0,
        series.system.title(),
        top + 34.0,
        series.system.remark()
    );
    let class = match series.system {
        System::HoldfastKill | System::HoldfastBrisk => "ours",
        System::HoldfastHandover => "planned",
        _ => "theirs",
    };
    let rows = results.rows.iter();
    for row in rows.filter(|row| row.system == series.system && row.sas == series.sas) {
        // Spread over a few heights, or equal ones would hide each other.
        let y = top + 14.0 + (row.round * 7 % 5) as f64 * 3.5;
        let x = axis.x(row.measured.outage_ms);
        let _ =
            write!(out, "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"/>");
    }
    let summary = &series.outage;
    let median = axis.x(summary.p50_ms);
    let loss = if series.system == System::HoldfastHandover {
        format!(", none lost in {} of {}", series.without_loss, summary.count)
    } else {
        String::new()
    };
    let told = format!(
        "p50 {}, p90 {}, p99 {}, max {} (n = {}){loss}",
        span(summary.p50_ms),
        span(summary.p90_ms),
        span(summary.p99_ms),
        span(summary.max_ms),
        summary.count,
    );
    // All of it within the picture.
    let text_left = median.min(WIDTH - RIGHT - told.len() as f64 * CHARACTER).max(LEFT + 4.0);
    let _ = writeln!(
        out,
        "\n<line class=\"median\" x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text x=\"{text_left:.1}\" y=\"{:.1}\">{told}</text>",
        top + 9.0,
        top + 33.0,
        top + 46.0,
    );
}

/// A length of time with the unit that suits it.
fn span(ms: f64) -> String {
    if ms < 999.5 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

/// A bar for each number of SAs: the mean of each part, on a linear axis of its own.
fn draw_parts(out: &mut String, series: &[&Series], top: f64) {
    let total = |series: &Series| series.parts.iter().map(|part| part.time.p50_ms).sum::<f64>();
    let longest = series.iter().map(|s| total(s)).fold(1.0, f64::max);
    if series.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"24\" y=\"{:.1}\">Where a takeover's time goes</text>\
         <text class=\"quiet\" x=\"{LEFT}\" y=\"{:.1}\">median of each part, until the first ESP \
         packet of the new owner</text>",
        top - 14.0,
        top - 14.0
    );
    for (index, series) in series.iter().enumerate() {
        let y = top + PARTS_ROW * index as f64;
        let mut x = LEFT;
        for (number, part) in series.parts.iter().enumerate() {
            let width = part.time.p50_ms / longest * (WIDTH - LEFT - RIGHT - 60.0);
            let _ = write!(
                out,
                "<rect class=\"p{number}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{PARTS_BAR}\"><title>{} {:.1} ms</title></rect>",
                part.name, part.time.p50_ms
            );
            x += width;
        }
        let _ = writeln!(
            out,
            "<text x=\"24\" y=\"{:.1}\">{} SA pair{}{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.0} ms</text>",
            y + 13.0,
            series.sas,
            if series.sas == 1 { "" } else { "s" },
            if series.system == System::HoldfastBrisk { ", brisk timing" } else { "" },
            x + 6.0,
            y + 13.0,
            total(series)
        );
    }
    let mut x = LEFT;
    let y = top + PARTS_ROW * series.len() as f64 + 6.0;
    let names = series.first().map(|series| series.parts.as_slice()).unwrap_or_default();
    for (number, part) in names.iter().enumerate() {
        let _ = write!(
            out,
            "<rect class=\"p{number}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>\
             <text class=\"quiet\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 9.0,
            x + 15.0,
            part.name
        );
        x += 30.0 + part.name.len() as f64 * 7.0;
    }
    out.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::parts::Parts;
    use super::super::results::Measured;
    use super::*;

    #[test]
    fn every_system_and_every_failure_is_drawn() {
        let mut results = Results::default();
        for (system, outage_ms) in [
            (System::HoldfastKill, 50.0),
            (System::Keepalived, 33.0),
            (System::StrongswanDpd, 2800.0),
            (System::StrongswanHa, 3800.0),
        ] {
            let parts = Parts { detect_ms: 30.0, agree_ms: 5.0, ..Parts::default() };
            let parts = (system == System::HoldfastKill).then_some(parts);
            let measured = Measured { outage_ms, parts, ..Measured::default() };
            results.add(system.clone(), 1, measured);
            results.add(system, 1, measured);
        }
        results.summarise();
        let drawn = svg(&results);
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
        assert_eq!(drawn.matches("<circle").count(), 8);
        for text in ["keepalived VRRP", "ha plugin", "DPD", "p50 2.80 s", ">10 s<", "detect"] {
            assert!(drawn.contains(text), "{text} is missing");
        }
    }

    #[test]
    fn the_axis_is_logarithmic_and_ends_on_a_decade() {
        let axis = Axis { to_ms: 10_000.0 };
        let (a, b, c) = (axis.x(1.0), axis.x(100.0), axis.x(10_000.0));
        assert!((b - a - (c - b)).abs() < 1e-6);
        assert_eq!((axis.x(0.2), c), (a, WIDTH - RIGHT));
    }
}
