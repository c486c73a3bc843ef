//! The node on which a new volume is created.

use uuid::Uuid;

use super::pool_usage::PoolUsage;

/// The nodes that the orchestrator wants a new volume on; empty, any node will do.
///
/// It is a hint: it refuses no volume, and an existing volume is never moved because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The nodes to try first, in this order.
    pub preferred: Vec<Uuid>,
    /// The nodes to try next, in any order.
    pub requisite: Vec<Uuid>,
}

impl Placement {
    /// Chooses one of `nodes`: the first preferred one, else the requisite one with the least data, else the one with the
    /// least data. Returns nothing when `nodes` is empty.
    pub(super) fn choose(&self, usage: &PoolUsage, nodes: &[Uuid]) -> Option<Uuid> {
        let preferred = self.preferred.iter().find(|node| nodes.contains(node));
        let requisite = || nodes.iter().filter(|node| self.requisite.contains(node));
        preferred
            .copied()
            .or_else(|| usage.least_loaded(requisite().copied()))
            .or_else(|| usage.least_loaded(nodes.iter().copied()))
    }

    /// Returns the node that the volume would be on if the orchestrator had its way, where that is another than `chosen`.
    pub(super) fn missed(&self, chosen: Uuid) -> Option<Uuid> {
        let first = self.preferred.first().copied();
        let wanted = first.or_else(|| {
            let met = self.requisite.contains(&chosen);
            self.requisite.first().copied().filter(|_| !met)
        });
        wanted.filter(|wanted| *wanted != chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);
    const C: Uuid = Uuid::from_u128(0xc);
    const UNKNOWN: Uuid = Uuid::from_u128(0xd);

    fn placement(preferred: &[Uuid], requisite: &[Uuid]) -> Placement {
        Placement {
            preferred: preferred.to_vec(),
            requisite: requisite.to_vec(),
        }
    }

    #[test]
    fn the_first_preferred_node_that_can_take_the_volume_is_chosen_then_a_requisite_one_then_any() {
        let mut usage = PoolUsage::default();
        usage.add_data(B, 2);
        usage.add_data(C, 1);
        let chosen = |placement: Placement, nodes: &[Uuid]| placement.choose(&usage, nodes);
        let all = [A, B, C];
        assert_eq!(chosen(placement(&[B, C], &[C]), &all), Some(B));
        assert_eq!(chosen(placement(&[UNKNOWN, B], &[C]), &all), Some(B));
        assert_eq!(chosen(placement(&[B], &[B, C]), &[A, C]), Some(C));
        assert_eq!(chosen(placement(&[], &[B, C]), &all), Some(C), "the least loaded");
        assert_eq!(chosen(placement(&[UNKNOWN], &[UNKNOWN]), &all), Some(A));
        assert_eq!(chosen(Placement::default(), &all), Some(A));
        assert_eq!(chosen(placement(&[A], &[]), &[]), None);
    }

    #[test]
    fn a_placement_is_missed_only_by_another_node() {
        assert_eq!(placement(&[A, B], &[]).missed(A), None);
        assert_eq!(placement(&[A, B], &[]).missed(B), Some(A));
        assert_eq!(placement(&[], &[A, B]).missed(B), None);
        assert_eq!(placement(&[], &[A, B]).missed(C), Some(A));
        assert_eq!(Placement::default().missed(C), None);
    }
}
