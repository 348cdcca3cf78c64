//! What limits say of a connection, once its client is known.

use super::spec::{Measure, Mode, Stage};
use super::{Keys, Limits, Moment, Network, Rule, Taken};

/// Whether a connection may be there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry {
    pub taken: Taken,
    /// The number of the rule that refuses it; nothing was taken.
    pub refused: Option<usize>,
    /// It would be refused if that limit were enforced.
    pub shadowed: Option<usize>,
    /// Networks that its client is in, where those are more than it may.
    pub networks: Option<u32>,
    /// The number of the rule of which that was not known yet.
    pub news: Option<usize>,
}

impl Limits {
    /// Asks all limits about a connection of which the handshake is done. Who was let in must [`leave`](Self::leave).
    pub fn enter(&self, keys: &Keys, from: Network, now: Moment) -> Entry {
        let mut entry = Entry::default();
        for (number, rule, key) in self.of_connections(keys) {
            let is_shadow = rule.spec.mode == Mode::Shadow;
            let is_over = match rule.measure {
                Measure::Networks(most) => {
                    let spread = rule.meter.enter(most, key, from, is_shadow).err();
                    entry.networks = entry.networks.max(spread.map(|spread| spread.networks));
                    entry.news = entry.news.or(spread.filter(|spread| spread.is_news).map(|_| number));
                    spread.is_some()
                }
                measure => rule.meter.take(measure, key, now).is_err(),
            };
            // Of networks a shadow counts also those beyond the limit.
            if !is_over || is_shadow && matches!(rule.measure, Measure::Networks(_)) {
                entry.taken.0 |= 1 << number;
            }
            match (is_over, is_shadow) {
                (false, _) => {}
                (true, true) => {
                    rule.meter.count_shadowed();
                    entry.shadowed.get_or_insert(number);
                }
                (true, false) => {
                    rule.meter.count_refused();
                    entry.refused = Some(number);
                    self.give_back(std::mem::take(&mut entry.taken), keys, from, now);
                    break;
                }
            }
        }
        entry
    }

    /// What was taken for a connection that is not let in after all.
    fn give_back(&self, taken: Taken, keys: &Keys, from: Network, now: Moment) {
        for (_, rule, key) in self.of_connections(keys).filter(|(number, ..)| taken.has(*number)) {
            match rule.measure {
                Measure::Networks(most) => rule.meter.leave(most, key, from, rule.spec.mode == Mode::Shadow),
                measure => rule.meter.give_back(measure, key, now),
            }
        }
    }

    /// The connection is closed.
    pub fn leave(&self, taken: Taken, keys: &Keys, from: Network, now: Moment) {
        for (_, rule, key) in self.of_connections(keys).filter(|(number, ..)| taken.has(*number)) {
            match rule.measure {
                Measure::Networks(most) => rule.meter.leave(most, key, from, rule.spec.mode == Mode::Shadow),
                measure => rule.meter.settle(measure, key, 0, now),
            }
        }
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
