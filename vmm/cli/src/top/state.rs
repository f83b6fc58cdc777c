//! What the view shows, and what keys do to it.

use std::collections::{BTreeMap, VecDeque};

use peerdma_suite::control::message::{Command, Machine, Status};
use peerdma_suite::found::Found;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::Reading;
use super::rates::{Link, Rates, links, rates};

/// Findings that are kept.
const MAX_FINDINGS: usize = 1000;
/// Characters of a filter.
const MAX_FILTER: usize = 40;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Leave,
    Ask(Command),
}

/// What lies over the view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Over {
    #[default]
    Nothing,
    Help,
    /// The chosen finding.
    Finding,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    last: Option<Reading>,
    pub(super) rates: Rates,
    pub(super) links: BTreeMap<String, Link>,
    pub(super) findings: VecDeque<Found>,
    /// The place of the chosen finding, from the newest on.
    pub(super) chosen: usize,
    /// The user wants to read what is there: new readings are not shown.
    pub(super) held: bool,
    /// Shows only functions whose name has this text.
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    pub(super) over: Over,
    /// Why the last request was refused.
    pub(super) refused: Option<String>,
}

impl State {
    /// The highest number of a finding.
    pub(super) fn newest(&self) -> u64 {
        self.findings.back().map_or(0, |found| found.number)
    }

    pub(super) fn status(&self) -> Option<&Status> {
        self.last.as_ref().map(|reading| &reading.status)
    }

    pub(super) fn machine(&self) -> Option<&Machine> {
        self.last.as_ref().map(|reading| &reading.machine)
    }

    pub(super) fn reading(&self) -> Option<&Reading> {
        self.last.as_ref()
    }

    /// A new reading has come.
    pub(super) fn take(&mut self, reading: Reading) {
        for found in &reading.findings.findings {
            match self.findings.iter_mut().find(|known| known.number == found.number) {
                Some(known) => *known = found.clone(),
                None => {
                    self.findings.push_back(found.clone());
                    // The chosen one stays chosen when others come, unless it is the newest.
                    self.chosen += usize::from(self.chosen > 0 || self.over == Over::Finding);
                }
            }
        }
        while self.findings.len() > MAX_FINDINGS {
            self.findings.pop_front();
        }
        self.chosen = self.chosen.min(self.findings.len().saturating_sub(1));
        if self.held && self.last.is_some() {
            return;
        }
        if let Some(last) = &self.last {
            self.rates = rates(&last.traffic, &reading.traffic);
            self.links = links(&reading.machine, &self.rates);
        }
        self.last = Some(reading);
    }

    /// The chosen finding.
    pub(super) fn finding(&self) -> Option<&Found> {
        self.findings.iter().rev().nth(self.chosen)
    }

    /// A request that a key asked for has been answered.
    pub(super) fn answered(&mut self, refused: Option<String>) {
        self.refused = refused;
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        self.refused = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Leave;
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::Nothing;
        }
        if self.over != Over::Nothing {
            // Choosing goes on below; any other key closes.
            match key.code {
                KeyCode::Up | KeyCode::Down if self.over == Over::Finding => {}
                _ => {
                    self.over = Over::Nothing;
                    return Action::Nothing;
                }
            }
        }
        match key.code {
            KeyCode::Char('q') => return Action::Leave,
            KeyCode::Char(' ') => self.held = !self.held,
            KeyCode::Char('p') => {
                let paused = self.status().is_some_and(|status| status.reason.is_some());
                return Action::Ask(match paused {
                    true => Command::Resume {},
                    false => Command::Pause {},
                });
            }
            KeyCode::Char('/') => {
                self.typing = true;
                self.filter.clear();
            }
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Up => self.chosen = self.chosen.saturating_sub(1),
            KeyCode::Down => {
                self.chosen = (self.chosen + 1).min(self.findings.len().saturating_sub(1));
            }
            KeyCode::Enter if !self.findings.is_empty() => self.over = Over::Finding,
            _ => {}
        }
        Action::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(character) if self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(character);
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Enter => self.typing = false,
            _ => {}
        }
    }

    /// Whether the function called `name` is to be shown.
    pub(super) fn shows(&self, name: &str) -> bool {
        self.filter.is_empty() || name.contains(&self.filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Action {
        state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn with_findings(numbers: &[u64]) -> Reading {
        let mut reading = Reading::default();
        let found = |number: &u64| Found { number: *number, ..Found::default() };
        reading.findings.findings = numbers.iter().map(found).collect();
        reading
    }

    #[test]
    fn a_chosen_finding_stays_chosen_when_others_come() {
        let mut state = State::default();
        state.take(with_findings(&[1, 2, 3]));
        assert_eq!(state.finding().unwrap().number, 3);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.finding().unwrap().number, 2);
        state.take(with_findings(&[3, 4]));
        assert_eq!((state.finding().unwrap().number, state.newest()), (2, 4));
        press(&mut state, KeyCode::Enter);
        assert_eq!(state.over, Over::Finding);
        press(&mut state, KeyCode::Up);
        assert_eq!(state.finding().unwrap().number, 3);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Action::Nothing, "it closes the finding");
        assert_eq!(press(&mut state, KeyCode::Char('q')), Action::Leave);
    }

    #[test]
    fn keys_of_a_filter_do_nothing_else() {
        let mut state = State::default();
        for code in [KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('p'), KeyCode::Enter] {
            assert_eq!(press(&mut state, code), Action::Nothing);
        }
        assert!(state.shows("qp0") && !state.shows("peer0") && !state.typing);
        press(&mut state, KeyCode::Char('/'));
        assert!(state.shows("peer0"));
        (0..100).for_each(|_| drop(press(&mut state, KeyCode::Char('x'))));
        assert_eq!(state.filter.len(), MAX_FILTER);
    }

    #[test]
    fn p_pauses_and_resumes() {
        let mut state = State::default();
        assert_eq!(press(&mut state, KeyCode::Char('p')), Action::Ask(Command::Pause {}));
        let mut paused = Reading::default();
        paused.status.reason = Some("asked for".into());
        state.take(paused);
        assert_eq!(press(&mut state, KeyCode::Char('p')), Action::Ask(Command::Resume {}));
    }

    #[test]
    fn a_held_view_shows_what_it_showed_but_takes_findings() {
        let mut state = State::default();
        let at = |milliseconds| {
            let mut reading = with_findings(&[milliseconds]);
            reading.status.milliseconds = milliseconds;
            reading
        };
        state.take(at(1));
        press(&mut state, KeyCode::Char(' '));
        state.take(at(2));
        assert_eq!((state.status().unwrap().milliseconds, state.newest()), (1, 2));
        press(&mut state, KeyCode::Char(' '));
        state.take(at(3));
        assert_eq!(state.status().unwrap().milliseconds, 3);
    }
}
