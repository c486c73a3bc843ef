//! Creates a dataset on a node, waits until the node has created its storage, and deletes the dataset.
//!
//! It shows what to do after each kind of failure: only a refusal of Flocker's own is final, and a write whose outcome
//! is unclear is repeated only after the state has been read again.
//!
//! ```console
//! $ cargo run -p flocker-client --example life_of_a_dataset -- --control-service https://flocker.example \
//!       --cluster-cert cluster.crt --user-cert plugin.crt --user-key plugin.key --mib 64
//! ```

#[path = "support/mod.rs"]
mod support;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use flocker_client::{Client, NewDataset, RequestOutcome};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How often to send a request that fails, and how long to wait before the next one.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Creates a dataset, waits for its storage, and deletes it.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    connection: support::Connection,
    /// Node on which to create it; by default the first one that Flocker lists.
    #[arg(long)]
    node: Option<Uuid>,
    /// Size in MiB, at least 64.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// Seconds to wait for the storage.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            support::print_chain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let client = arguments.connection.client().await?;
    let nodes = client.list_nodes().await?;
    let first = nodes.first().map(|node| node.uuid);
    let primary = arguments.node.or(first).ok_or("Flocker lists no node")?;
    // With an id of its own, a creation can be repeated without a second dataset.
    let dataset = Uuid::new_v4();
    let new = NewDataset {
        dataset_id: Some(dataset),
        primary,
        maximum_size: Some(arguments.mib << 20),
        metadata: [("name".to_owned(), format!("example-{dataset}"))].into(),
    };
    create(&client, &new, dataset).await?;
    println!("Created dataset {dataset} on node {primary}");
    let backed = wait_for_storage(&client, dataset, Duration::from_secs(arguments.patience)).await;
    client.delete_dataset(dataset).await?;
    println!("Deleted dataset {dataset}");
    backed
}

async fn create(client: &Client, new: &NewDataset, dataset: Uuid) -> Result<(), Box<dyn Error>> {
    let mut attempt = 1;
    loop {
        let Err(error) = client.create_dataset(new).await else {
            return Ok(());
        };
        let may_be_repeated = match error.outcome() {
            // An earlier attempt with an unclear outcome was carried out after all.
            RequestOutcome::Refused if error.is_conflict() && attempt > 1 => return Ok(()),
            RequestOutcome::Refused => false,
            RequestOutcome::WithoutEffect => true,
            RequestOutcome::Unclear => {
                let configured = client.list_datasets().await?.datasets;
                if configured
                    .iter()
                    .any(|configured| configured.dataset_id == dataset)
                {
                    return Ok(());
                }
                true
            }
        };
        if !may_be_repeated || attempt == ATTEMPTS {
            return Err(error.into());
        }
        attempt += 1;
        sleep(PAUSE).await;
    }
}

/// Waits until a node reports the dataset: its storage exists from then on, mounted or not.
async fn wait_for_storage(client: &Client, dataset: Uuid, patience: Duration) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let states = client.list_dataset_states().await?;
        if let Some(state) = states.into_iter().find(|state| state.dataset_id == dataset) {
            match state.path {
                Some(path) => println!("Its storage exists and is mounted at {}", path.display()),
                None => println!("Its storage exists and is not mounted yet"),
            }
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(format!("no node reported dataset {dataset} within {patience:?}").into())
}
