//! The questions of an operator, on two nodes with a cluster of 1,000 volumes.

use std::time::Duration;

use flocker_client::NewDataset;
use flocker_embedded::Options;
use flocker_embedded::faults::AgentState;
use tokio::time::Instant;
use uuid::Uuid;

use super::run;
use crate::node::Fixture;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const VOLUMES: usize = 1000;

/// Declares so many volumes that no agent makes: what is asked about is how they are listed.
async fn declare_many(flocker: &Flocker) -> Vec<Uuid> {
    let client = flocker.client().await;
    let mut declared = Vec::new();
    for number in 0..VOLUMES {
        let new = NewDataset {
            dataset_id: None,
            primary: flocker.node(1 + number % 2),
            maximum_size: Some(64 << 20),
            metadata: [("name".to_owned(), format!("volume-{number:04}"))].into(),
        };
        let dataset = client.create_dataset(&new).await.unwrap().dataset_id;
        if number % 4 == 1 {
            client
                .acquire_lease(dataset, flocker.node(2), None)
                .await
                .unwrap();
        }
        declared.push(dataset);
    }
    declared
}

#[test]
fn the_questions_of_an_operator_are_each_answered_by_one_command() {
    in_own_namespace(|| async {
        let flocker = Flocker::with(|options| Options {
            nodes: 2,
            capacity: Some(256 << 20),
            node_expiry: Some(Duration::from_millis(500)),
            ..options
        })
        .await;
        let fixture = Fixture::on(Machine::new(&flocker, 1), flocker).await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let used = fixture.published("used").await;
        let forgotten = fixture.attached("forgotten").await;
        let declared = declare_many(flocker).await;
        let ask = async |question: &str, given: &[&str]| {
            let began = Instant::now();
            let answer = run(machine, given).await;
            println!(
                "{question}\n$ flocker-csi {}   ({:?})",
                given.join(" "),
                began.elapsed()
            );
            for line in answer.text.lines().take(4) {
                println!("{line}");
            }
            println!("… {} lines\n", answer.text.lines().count());
            answer.assert_code(0);
            answer
        };
        let node = flocker.node(2).to_string();
        let on_node = ask("Which volumes are on which node?", &["volumes", "--node", &node]).await;
        assert_eq!(on_node.text.lines().count(), 1 + VOLUMES / 2);
        let all = ask("Which volumes are there?", &["volumes"]).await;
        assert_eq!(all.text.lines().count(), 1 + VOLUMES + 2);
        let leases = ask("Who holds the lease?", &["leases", "--node", &node]).await;
        assert_eq!(leases.text.lines().count(), 1 + VOLUMES / 4);
        let leaked = ask("What leaked?", &["volumes", "--leased-but-unused"]).await;
        assert_eq!(leaked.text.lines().count(), 2);
        assert!(leaked.text.contains(&forgotten.volume_id) && !leaked.text.contains(&used.volume_id));

        flocker
            .embedded()
            .faults()
            .change(|plan| plan.nodes.entry(2).or_default().agent = AgentState::Stopped);
        let client = flocker.client().await;
        eventually("the dead node is no longer listed", async || {
            (client.list_nodes().await.unwrap().into_iter().count() == 1).then_some(())
        })
        .await;
        let given = [
            "leases",
            "release",
            "volume-0001",
            "--node",
            &node,
            "--yes",
            "--force",
        ];
        ask("How is the lease of a dead node released?", &given).await;
        assert_eq!(flocker.leaseholder(declared[1]).await, None);
    });
}
