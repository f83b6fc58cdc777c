//! The view on a screen of any size, and as text.

use std::fmt::Write;

use peerdma_suite::control::message::{Function, Machine};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, Wrap};

use super::rates::{Rate, short};
use super::state::{Over, State};

/// Narrower screens show functions and findings only.
const WIDE: u16 = 70;

/// A column: its title, its width, the narrowest screen that has it, and its text.
type Column = (&'static str, u16, u16, fn(&Rate) -> String);

const COLUMNS: &[Column] = &[
    ("FUNCTION", 14, 0, |rate| rate.name.clone()),
    ("ID", 7, 60, |rate| rate.requester.clone()),
    ("TLP/s", 7, 24, |rate| short(rate.tlps)),
    ("READ/s", 7, 32, |rate| short(rate.bytes()[0])),
    ("WRITE/s", 7, 40, |rate| short(rate.bytes()[1])),
    ("RAM", 7, 76, |rate| route(rate, "memory")),
    ("BRIDGE", 7, 84, |rate| route(rate, "through-host-bridge")),
    ("DIRECT", 7, 92, |rate| route(rate, "bus-address")),
    ("MAPPED", 6, 100, |rate| rate.mappings.map_or("?".into(), |count| count.to_string())),
    ("FOUND", 5, 50, |rate| rate.findings.to_string()),
];

/// Bytes in a second by one route.
fn route(rate: &Rate, name: &str) -> String {
    short(rate.routes.get(name).map_or(0.0, |[read, written]| read + written))
}

/// Control characters of a guest's text do not reach the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let functions = u16::try_from(shown(state).count()).unwrap_or(u16::MAX).saturating_add(3);
    let [head, table, rest, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Max(functions),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(header(state)), head);
    table_of(frame, state, table);
    if area.width >= WIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(45), Constraint::Fill(1)]).areas(rest);
        let topology = Paragraph::new(topology(state)).block(Block::bordered().title("links"));
        frame.render_widget(topology, left);
        findings(frame, state, right);
    } else {
        findings(frame, state, rest);
    }
    frame.render_widget(Paragraph::new(footer(state)).dim(), foot);
    match state.over {
        Over::Nothing => {}
        Over::Help => over(frame, "keys", HELP.into()),
        Over::Finding => {
            if let Some(found) = state.finding() {
                over(frame, "finding", details(found).into());
            }
        }
    }
}

const HELP: &str = "\
q        leave; Esc closes what is open
Space    hold the view, let it go on
p        pause the guest and its devices, let them go on
/        show only functions whose name has a text
Up Down  choose a finding
Enter    open it, with what happened before it

RAM, BRIDGE and DIRECT are the routes: to RAM, to another function through the host bridge and its IOMMU, and to another
function by a turn in a switch that no IOMMU sees. All are bytes in a second, but for MAPPED, what the function's driver
has mapped, and FOUND.";

/// A text over the rest.
fn over(frame: &mut Frame<'_>, title: &'static str, text: Text<'static>) {
    let area = frame.area();
    let [area] = Layout::vertical([Constraint::Percentage(80)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [area] = Layout::horizontal([Constraint::Percentage(90)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    let text = Paragraph::new(text).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title(title)), area);
}

fn header(state: &State) -> Vec<Line<'static>> {
    let Some(reading) = state.reading() else { return Vec::new() };
    let (status, traffic) = (&reading.status, &reading.traffic);
    let seconds = status.milliseconds / 1000;
    let is = match &status.reason {
        Some(reason) => format!("PAUSED: {}", plain(reason)),
        None => "running".into(),
    };
    let first = format!("{} {is}  {seconds} s", plain(&status.scenario));
    let first = Line::from(first).bold();
    let second = format!(
        "{} TLPs  IOMMU: {} mapped, {} requests/s, {} faults  {} findings",
        status.transactions,
        traffic.iommu_mappings,
        short(state.rates.iommu_requests),
        traffic.iommu_faults,
        traffic.findings
    );
    vec![if status.reason.is_some() { first.yellow() } else { first }, Line::from(second)]
}

fn footer(state: &State) -> String {
    if let Some(refused) = &state.refused {
        return plain(refused);
    }
    if state.typing {
        return format!("only functions with: {}_", state.filter);
    }
    let held = if state.held { "HELD  " } else { "" };
    let filter = match state.filter.as_str() {
        "" => String::new(),
        filter => format!("only {filter:?}  "),
    };
    format!("{held}{filter}q leave  Space hold  p pause  / filter  Enter finding  ? help")
}

fn shown(state: &State) -> impl Iterator<Item = &Rate> {
    state.rates.functions.iter().filter(|rate| state.shows(&rate.name))
}

fn table_of(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|(_, _, narrowest, _)| area.width >= *narrowest).collect();
    let rows = shown(state).map(|rate| {
        let row = Row::new(columns.iter().map(|(.., text)| plain(&text(rate))).collect::<Vec<_>>());
        if rate.tlps > 0.0 { row } else { row.dim() }
    });
    let widths = columns.iter().map(|(_, width, ..)| Constraint::Length(*width));
    let titles = Row::new(columns.iter().map(|(title, ..)| *title)).bold();
    let table = Table::new(rows, widths).header(titles).block(Block::bordered().title("functions"));
    frame.render_widget(table, area);
}

/// The tree, with what is on the link below each port.
fn topology(state: &State) -> Vec<Line<'static>> {
    let Some(machine) = state.machine() else { return Vec::new() };
    let mut lines = Vec::new();
    for root in machine.functions.iter().filter(|of| of.parent.is_none()) {
        below(&mut lines, state, machine, root, 0);
    }
    lines
}

fn below(
    lines: &mut Vec<Line<'static>>,
    state: &State,
    machine: &Machine,
    function: &Function,
    level: usize,
) {
    let name = plain(&function.name);
    let mut line = format!("{}{name}", "  ".repeat(level));
    if function.buses.is_some() {
        let link = state.links.get(&function.name).copied().unwrap_or_default();
        let mark = if link.at_least { ">=" } else { "" };
        let _ = write!(line, "  up {mark}{}  down {mark}{}", short(link.up), short(link.down));
    }
    if function.link_down {
        line.push_str("  LINK DOWN");
    }
    let is_busy = state.links.get(&function.name).is_some_and(|link| link.up + link.down > 0.0);
    lines.push(if is_busy { Line::from(line).cyan() } else { Line::from(line) });
    // An answer that names a function as its own ancestor would never end.
    if level < machine.functions.len() {
        let own = Some(function.name.as_str());
        let children = machine.functions.iter().filter(|of| of.parent.as_deref() == own);
        children.for_each(|child| below(lines, state, machine, child, level + 1));
    }
}

fn findings(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let room = usize::from(area.height.saturating_sub(2));
    // The chosen one is in sight.
    let skip = state.chosen.saturating_sub(room.saturating_sub(1));
    let newest = state.findings.iter().rev().enumerate().skip(skip).take(room);
    let lines: Vec<Line<'_>> = newest
        .map(|(place, found)| {
            let times =
                if found.count > 1 { format!(" ({} times)", found.count) } else { String::new() };
            let line = Line::from(format!("{} {}{times}", found.number, sentence(found)));
            let style = if found.severity == "finding" { Style::new().red() } else { Style::new() };
            let line = line.style(style);
            if place == state.chosen { line.reversed() } else { line }
        })
        .collect();
    let title = format!("findings ({})", state.findings.len());
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

/// Function, class, and what is wrong.
fn sentence(found: &peerdma_suite::found::Found) -> String {
    plain(&format!("{} {}: {}", found.function, found.class, found.message))
}

/// A finding with what led to it.
fn details(found: &peerdma_suite::found::Found) -> String {
    let mut text = format!("{}\n", sentence(found));
    if let (Some(operation), Some(address), Some(length)) =
        (&found.operation, &found.address, found.length)
    {
        let number = found.sequence.unwrap_or_default();
        let _ = writeln!(text, "#{number} {operation} addr={} len={length}", plain(address));
    }
    if found.count > 1 {
        let _ = writeln!(text, "{} times, {} bytes", found.count, found.bytes);
    }
    if !found.before.is_empty() {
        text.push_str("\nbefore it, the latest last:\n");
    }
    found.before.iter().for_each(|event| {
        let _ = writeln!(text, "  {}", plain(event));
    });
    let _ = write!(
        text,
        "\n`peerdma findings {}` explains the class; `peerdma ctl mappings {}` shows what is mapped now",
        plain(&found.class),
        plain(&found.function)
    );
    text
}

/// One reading for a pipe.
pub(super) fn text(state: &State) -> String {
    let mut text = String::new();
    for line in header(state) {
        let _ = writeln!(text, "{line}");
    }
    let row = |cells: Vec<String>| {
        let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width, ..))| {
            let width = usize::from(*width);
            format!("{cell:width$}")
        });
        padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    let _ = writeln!(text, "{}", row(COLUMNS.iter().map(|(title, ..)| (*title).into()).collect()));
    for rate in &state.rates.functions {
        let cells = COLUMNS.iter().map(|(.., cell)| plain(&cell(rate))).collect();
        let _ = writeln!(text, "{}", row(cells));
    }
    for line in topology(state) {
        let _ = writeln!(text, "{line}");
    }
    for found in state.findings.iter().rev().take(10) {
        let _ = writeln!(text, "{} {}", found.number, sentence(found));
    }
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::Reading;
    use super::*;
    use peerdma_suite::control::message::FunctionTraffic;
    use peerdma_suite::found::Found;

    fn state() -> State {
        let mut reading = Reading::default();
        reading.status.scenario = "user".into();
        let function = |name: &str, parent: Option<&str>, port: bool| Function {
            name: name.into(),
            parent: parent.map(str::to_owned),
            buses: port.then_some((1, 1)),
            ..Function::default()
        };
        reading.machine.functions =
            vec![function("port0", None, true), function("peer0", Some("port0"), false)];
        let mut state = State::default();
        state.take(reading.clone());
        let bytes = [("ram".to_owned(), 5_000_000)].into();
        let traffic = FunctionTraffic {
            name: "peer0".into(),
            tlps: 1000,
            written: [("memory".to_owned(), 5_000_000)].into(),
            written_to: bytes,
            ..FunctionTraffic::default()
        };
        reading.traffic.functions.push(traffic);
        reading.traffic.milliseconds = 1000;
        reading.findings.findings.push(Found {
            number: 1,
            class: "iommu.stale".into(),
            severity: "finding".into(),
            message: "a stale\u{1b}[31m mapping".into(),
            before: vec!["kernel: unmapped".into()],
            ..Found::default()
        });
        state.take(reading);
        state
    }

    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width.max(1)));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn a_screen_shows_rates_links_and_findings() {
        let text = screen(&state(), 110, 24);
        for part in [
            "user running",
            "peer0",
            "5.00 M",
            "up 5.00 M  down -",
            "iommu.stale: a stale",
            "findings (1)",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn every_size_of_screen_is_drawn() {
        let mut state = state();
        for width in [0, 1, 5, 20, 40, 80, 300] {
            for height in [0, 1, 2, 3, 5, 10, 100] {
                screen(&state, width, height);
            }
        }
        let narrow = screen(&state, 20, 16);
        assert!(narrow.contains("peer0") && narrow.contains("iommu.stale"), "{narrow}");
        state.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        let open = screen(&state, 80, 24);
        assert!(open.contains("kernel: unmapped"), "{open}");
        state.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        state.key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE));
        assert!(screen(&state, 80, 24).contains("pause the guest"));
    }

    #[test]
    fn a_pipe_gets_text() {
        let text = text(&state());
        assert!(text.lines().any(|line| line.starts_with("peer0") && line.contains("5.00 M")));
        assert!(!text.contains('\u{1b}') && text.lines().all(|line| !line.ends_with(' ')));
    }
}
