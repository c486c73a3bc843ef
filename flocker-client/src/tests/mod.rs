//! Behaviour towards a TLS server that replaces the control service.

mod answers;
mod classification;
mod connection;
mod credentials;
mod entries;
mod pki;
mod refusals;
mod server;
mod sharing;
mod trust;

use std::{error::Error as StdError, net::SocketAddr, time::Duration};

use uuid::Uuid;

use crate::{Client, ClientSettings, Credentials, NewDataset};

const NODE: Uuid = Uuid::from_u128(0x0fbb_d6e1_f558_4ea3_b2fe_b026_8d12_322a);

/// Returns settings with time-outs that suffice on a busy machine.
fn settings(address: SocketAddr, credentials: Credentials) -> ClientSettings {
    let patience = Duration::from_secs(60);
    ClientSettings {
        timeout: patience,
        connect_timeout: patience,
        ..ClientSettings::new(address.into(), credentials)
    }
}

fn client(address: SocketAddr, credentials: Credentials) -> Client {
    Client::new(settings(address, credentials)).unwrap()
}

fn new_dataset() -> NewDataset {
    NewDataset {
        dataset_id: None,
        primary: NODE,
        maximum_size: None,
        metadata: [].into(),
    }
}

/// Returns the messages of an error and all its causes, as a log prints them.
fn full_message(error: &dyn StdError) -> String {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages.join(": ")
}
