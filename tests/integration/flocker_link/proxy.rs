//! Answers that are not Flocker's own, such as those of a proxy in front of it: none of them is final.

use std::collections::HashMap;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::{Code, Status};
use uuid::Uuid;

use super::CONFIGURATION;
use crate::node::assert_refused;
use crate::support::csi::{Csi, to_attach, to_create};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";
const LEASES: &str = "/v1/configuration/leases";

/// Status and body of answers that Flocker never gives.
const ANSWERS: [(u16, &str); 10] = [
    (404, "<html><body><h1>404 Not Found</h1></body></html>"),
    (429, "Too Many Requests"),
    (408, ""),
    (401, "Unauthorized"),
    (403, "<html>Forbidden</html>"),
    (404, r#"{"message": "no Route matched with those values"}"#),
    (
        404,
        r#"{"code": 404, "name": "Not Found", "description": "The URL was not found."}"#,
    ),
    (302, ""),
    (200, "<html>Please log in</html>"),
    (200, r#"{"status": "ok"}"#),
];

fn proxy((status, body): (u16, &str)) -> RequestFault {
    let answer = Effect::Answer {
        status,
        body: body.to_owned(),
    };
    RequestFault::new("proxy", answer)
}

async fn list(csi: &Csi) -> Result<(), Status> {
    csi.controller()
        .list_volumes(csi_proto::v1::ListVolumesRequest::default())
        .await
        .map(drop)
}

#[test]
fn a_controller_takes_no_answer_of_a_proxy_for_a_final_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let volume = plugin.csi.create("data").await;
        let faults = flocker.embedded().faults();
        for answer in ANSWERS {
            faults.add(proxy(answer));
            let csi = &plugin.csi;
            let (created, attached, listed, deleted) = tokio::join!(
                csi.try_create(to_create("other")),
                csi.try_attach(to_attach(volume, machine.node())),
                list(csi),
                csi.delete(volume)
            );
            for refused in [created.map(drop), attached.map(drop), listed, deleted] {
                assert_refused(refused, Code::Unavailable, &[]);
            }
            faults.clear();
        }
        plugin.csi.attach(volume, machine.node()).await;
        plugin.csi.detach(volume, machine.node()).await;
        plugin.csi.delete(volume).await.unwrap();
        plugin.stop().await;
    });
}

#[test]
fn a_write_that_a_proxy_answers_is_neither_final_nor_done() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let csi = &plugin.csi;
        let volume = csi.create("data").await;
        let faults = flocker.embedded().faults();
        for answer in ANSWERS {
            faults.add(proxy(answer).on("POST", LEASES));
            let attached = csi.try_attach(to_attach(volume, machine.node())).await;
            assert_refused(attached, Code::Unavailable, &[&volume.to_string()]);
            faults.clear();
            faults.add(proxy(answer).on("DELETE", DATASET));
            assert_refused(
                csi.delete(volume).await,
                Code::Unavailable,
                &[&volume.to_string()],
            );
            faults.clear();
            faults.add(proxy(answer).on("POST", CONFIGURATION));
            let created = csi.try_create(to_create("other")).await;
            assert_refused(created, Code::Unavailable, &["other"]);
            faults.clear();
        }
        let live = flocker.datasets().await;
        let live: Vec<Uuid> = live
            .iter()
            .filter(|dataset| !dataset.deleted)
            .map(|dataset| dataset.dataset_id)
            .collect();
        assert_eq!(live, [volume]);
        plugin.stop().await;
    });
}

#[test]
fn staging_that_a_proxy_interrupts_is_continued_and_not_undone() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let (first, second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        let (one, two) = (first.plugin().await, second.plugin().await);
        let faults = flocker.embedded().faults();
        for (number, answer) in ANSWERS.into_iter().enumerate() {
            let name = format!("volume-{number}");
            let volume = one.csi.create(&name).await;
            one.csi.attach(volume, first.node()).await;
            one.csi.detach(volume, first.node()).await;
            let usage = second.usage(&name, volume, &HashMap::new());

            faults.add(proxy(answer).on("POST", DATASET));
            assert_refused(
                two.csi.stage(&usage).await,
                Code::Unavailable,
                &[&volume.to_string()],
            );
            assert_eq!(
                flocker.leaseholder(volume).await,
                Some(second.node()),
                "{answer:?}"
            );
            assert_eq!(second.records().len(), 1, "{answer:?}");
            faults.clear();

            two.csi.stage(&usage).await.unwrap();
            only_mount_at(&usage.alias());
            two.csi.unstage(&usage).await.unwrap();
            two.csi.delete(volume).await.unwrap();
        }
        one.stop().await;
        two.stop().await;
    });
}
