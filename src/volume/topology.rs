//! Topology: the segment that stands for a node of Flocker, with which an orchestrator says where a volume will be used.

use std::collections::HashMap;

use clap::ValueEnum;
use uuid::Uuid;

use crate::error::{Error, Result, Situation};

/// What the name of the node's segment is, after the name of the driver.
const NODE: &str = "node";

/// Whether orchestrators learn where nodes are, and may say where they want a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// No topology is announced, reported or read.
    Off,
    /// A new volume is created on the node that the orchestrator prefers. It may be used on every node all the same.
    Hint,
}

/// The key of the segment whose value is the UUID of a node: `<driver name>/node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyKey(String);

impl TopologyKey {
    /// Returns the key of the driver with that name. CSI allows no capitals in this part of a key.
    pub fn of(driver_name: &str) -> Self {
        Self(format!("{}/{NODE}", driver_name.to_ascii_lowercase()))
    }

    /// Returns the segments of a node.
    pub fn segments(&self, node: Uuid) -> HashMap<String, String> {
        [(self.0.clone(), node.to_string())].into()
    }

    /// Returns the node that `segments` name; none where they have no such segment. Keys are compared without regard to
    /// case, as CSI requires, and segments with other keys have no meaning.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] for a value that is the UUID of no node.
    pub(crate) fn node(&self, segments: &HashMap<String, String>) -> Result<Option<Uuid>> {
        let segment = segments.iter().find(|(key, _)| key.eq_ignore_ascii_case(&self.0));
        segment
            .map(|(key, value)| {
                Uuid::try_parse(value).map_err(|_| {
                    let text = format!(
                        "topology segment {key:?} is {value:?}: expected the UUID of a Flocker node, as NodeGetInfo reports it"
                    );
                    Error::new(Situation::InvalidArgument, text)
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_ID: Uuid = Uuid::from_u128(0x1b4e_28ba_2fa1_4d2c_883f_0016_d3cc_a427);

    fn segments(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_segments_of_a_node_name_that_node() {
        let key = TopologyKey::of("Flocker.csi.Example.com");
        let of_node = key.segments(NODE_ID);
        let id = NODE_ID.to_string();
        assert_eq!(of_node, segments(&[("flocker.csi.example.com/node", &id)]));
        assert_eq!(key.node(&of_node).unwrap(), Some(NODE_ID));
        let capitals = segments(&[("FLOCKER.csi.example.com/Node", &id.to_uppercase())]);
        assert_eq!(key.node(&capitals).unwrap(), Some(NODE_ID));
    }

    #[test]
    fn segments_of_other_keys_name_no_node() {
        let key = TopologyKey::of("flocker.csi.example.com");
        let others = segments(&[
            ("topology.kubernetes.io/zone", "eu-1"),
            ("other.csi.example.com/node", "a"),
        ]);
        for none in [others, segments(&[])] {
            assert_eq!(key.node(&none).unwrap(), None);
        }
    }

    #[test]
    fn a_value_that_is_no_uuid_is_refused_with_key_and_value() {
        let key = TopologyKey::of("flocker.csi.example.com");
        for value in ["", "worker-3", "1b4e28ba"] {
            let refused = key
                .node(&segments(&[("flocker.csi.example.com/node", value)]))
                .unwrap_err();
            assert_eq!(refused.situation(), Situation::InvalidArgument);
            let text = format!("\"flocker.csi.example.com/node\" is {value:?}: expected the UUID");
            assert!(refused.chain().contains(&text), "{}", refused.chain());
        }
    }
}
