//! The bus of a single node: there is nobody else to tell.

use super::{Bus, Hint};

/// No other nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleNode;

impl Bus for SingleNode {
    fn publish(&self, _hints: Vec<Hint>) {}

    fn reaches_others(&self) -> bool {
        false
    }

    fn hears_others(&self) -> bool {
        true
    }
}
