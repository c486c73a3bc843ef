//! Lists the live datasets of a cluster: where each is meant to be, where it is mounted, and which node has leased it.
//!
//! ```console
//! $ cargo run -p flocker-client --example datasets -- --control-service https://flocker.example \
//!       --cluster-cert cluster.crt --user-cert plugin.crt --user-key plugin.key
//! ```

#[path = "support/mod.rs"]
mod support;

use std::{collections::HashMap, error::Error, process::ExitCode};

use clap::Parser;
use flocker_client::Client;
use uuid::Uuid;

/// Lists the live datasets of a cluster.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    connection: support::Connection,
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
    println!("Flocker {}", client.version().await?);
    let mounts = mounts(&client).await?;
    let leases = client.list_leases().await?;
    let leases: HashMap<Uuid, Uuid> = leases
        .into_iter()
        .map(|lease| (lease.dataset_id, lease.node_uuid))
        .collect();
    let datasets = client.list_datasets().await?.datasets;
    for dataset in datasets.into_iter().filter(|dataset| !dataset.deleted) {
        let id = dataset.dataset_id;
        let size = dataset
            .maximum_size
            .map_or("default size".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        println!("{id}  {size}  primary {}", dataset.primary);
        for (key, value) in &dataset.metadata {
            println!("    {key} = {value}");
        }
        match mounts.get(&id) {
            Some(mount) => println!("    mounted {mount}"),
            None => println!("    not mounted"),
        }
        if let Some(node) = leases.get(&id) {
            println!("    leased by node {node}");
        }
    }
    Ok(())
}

/// Returns where each mounted dataset is mounted.
async fn mounts(client: &Client) -> Result<HashMap<Uuid, String>, flocker_client::Error> {
    let nodes = client.list_nodes().await?;
    let hosts: HashMap<Uuid, String> = nodes.into_iter().map(|node| (node.uuid, node.host)).collect();
    let mut mounts = HashMap::new();
    for state in client.list_dataset_states().await? {
        if let (Some(node), Some(path)) = (state.primary, state.path) {
            let host = hosts.get(&node).map_or("unlisted", String::as_str);
            let mount = format!("at {} on node {node} ({host})", path.display());
            mounts.insert(state.dataset_id, mount);
        }
    }
    Ok(mounts)
}
