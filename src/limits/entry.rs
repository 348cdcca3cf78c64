//! What limits say of a connection, once its client is known.

use std::sync::Arc;

use super::meter::Meter;
use super::spec::{Measure, Mode, Stage};
use super::{Keys, Limits, Moment, Network, Rule};

/// Whether a connection may be there.
#[derive(Default)]
pub struct Entry {
    /// What it holds of limits for as long as it is open.
    pub held: Vec<Hold>,
    /// The number of the rule that refuses it; nothing is held.
    pub refused: Option<usize>,
    /// It would be refused if that limit were enforced.
    pub shadowed: Option<usize>,
    /// Networks that its client is in, where those are more than it may.
    pub networks: Option<u32>,
    /// The number of the rule of which that was not known yet.
    pub news: Option<usize>,
}

/// A place of a connection, given back when dropped. It keeps no more of an old configuration than the counts that the new
/// one goes on with.
pub struct Hold {
    meter: Arc<Meter>,
    measure: Measure,
    key: u64,
    from: Network,
    mode: Mode,
}

impl Limits {
    /// Asks all limits about a connection of which the handshake is done.
    pub fn enter(&self, keys: &Keys, from: Network, now: Moment) -> Entry {
        let mut entry = Entry::default();
        for (number, rule, key) in self.of_connections(keys) {
            let mode = rule.spec.mode;
            let is_over = match rule.measure {
                Measure::Networks(most) => {
                    let spread = rule.meter.enter(most, key, from, mode).err();
                    entry.networks = entry.networks.max(spread.map(|spread| spread.networks));
                    entry.news = entry.news.or(spread.filter(|spread| spread.is_news).map(|_| number));
                    spread.is_some()
                }
                measure => rule.meter.take(measure, key, now).is_err(),
            };
            let is_held = match rule.measure {
                Measure::Connections(_) => !is_over,
                // A shadow counts also those beyond the limit.
                Measure::Networks(_) => !is_over || mode == Mode::Shadow,
                _ => false,
            };
            if is_held {
                let (meter, measure) = (rule.meter.clone(), rule.measure);
                entry.held.push(Hold { meter, measure, key, from, mode });
            }
            match (is_over, mode) {
                (false, _) => {}
                (true, Mode::Shadow) => {
                    rule.meter.count_shadowed();
                    entry.shadowed.get_or_insert(number);
                }
                (true, Mode::Enforce) => {
                    rule.meter.count_refused();
                    entry.refused = Some(number);
                    entry.held.clear();
                    break;
                }
            }
        }
        entry
    }

    pub(super) fn of_connections<'a>(
        &'a self,
        keys: &'a Keys,
    ) -> impl Iterator<Item = (usize, &'a Rule, u64)> + 'a {
        let rules = self.rules.iter().zip(&keys.of).enumerate();
        rules
            .filter(|(_, (rule, _))| rule.measure.stage() == Stage::Connection)
            .filter_map(|(number, (rule, key))| Some((number, rule, (*key)?)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        match self.measure {
            Measure::Networks(most) => self.meter.leave(most, self.key, self.from, self.mode),
            // What is counted at a time has nothing to do with the clock.
            measure => self.meter.give_back(measure, self.key, Moment(0)),
        }
    }
}
