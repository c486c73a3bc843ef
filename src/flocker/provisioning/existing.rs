//! What Flocker already has under a volume's name.

use flocker_client::Dataset;
use uuid::Uuid;

use super::request::{NewVolume, Volume};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::Snapshot;
use crate::volume::{DRIVER_KEY, Generation, NAME_KEY, Namespace, profile_of, size_of, size_text};

/// What a configuration says about a volume that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// The volume exists, as it is wanted.
    Same(Volume),
    /// It does not; this id is free for it.
    Free {
        /// The id of its next generation.
        dataset: Uuid,
        /// That generation.
        generation: Generation,
    },
}

/// Looks the volume up in the configuration of `snapshot`.
///
/// Its id follows from its name and its generation; generations that the configuration lists as deleted are over.
///
/// # Errors
/// [`Situation::Incompatible`], naming the difference, when a volume of that name is there with another size,
/// profile or origin.
pub(super) fn find(
    snapshot: &Snapshot,
    driver: &str,
    namespace: &Namespace,
    call: &NewVolume,
) -> Result<Existing> {
    let mut generation: Generation = 0;
    loop {
        let dataset = namespace.dataset_id(&call.name, generation);
        match snapshot.dataset(dataset) {
            Some(found) if found.deleted => generation += 1,
            Some(found) => return compare(found, driver, call).map(Existing::Same),
            None => {
                refuse_namesake(snapshot, driver, call)?;
                return Ok(Existing::Free { dataset, generation });
            }
        }
    }
}

fn compare(found: &Dataset, driver: &str, call: &NewVolume) -> Result<Volume> {
    let dataset = found.dataset_id;
    let size = size_of(found.maximum_size, None);
    let profile = profile_of(&found.metadata);
    let difference = if found
        .metadata
        .get(DRIVER_KEY)
        .is_none_or(|origin| origin != driver)
    {
        format!("it was made by {}, not by {driver:?}", origin(found))
    } else if !call.range.contains(size) {
        let (required_bytes, limit_bytes) = (call.range.required_bytes(), call.range.limit_bytes());
        format!(
            "it has {size} bytes ({}), asked for were required_bytes {required_bytes} and limit_bytes {limit_bytes} \
             (0: open)",
            size_text(size)
        )
    } else if profile != call.parameters.profile.as_deref() {
        let text = |profile: Option<&str>| {
            profile.map_or("no profile".to_owned(), |name| format!("profile {name:?}"))
        };
        format!(
            "it has {}, asked for was {}",
            text(profile),
            text(call.parameters.profile.as_deref())
        )
    } else {
        return Ok(Volume { dataset, size });
    };
    Err(Error::new(
        Situation::Incompatible,
        format!("{call}: volume {dataset} has that name, but {difference}"),
    ))
}

/// Refuses a name that a live dataset of other origin carries: Flocker's Docker plugin, which knows datasets by
/// name, would mount either.
fn refuse_namesake(snapshot: &Snapshot, driver: &str, call: &NewVolume) -> Result<()> {
    let namesake = snapshot.datasets().find(|dataset| {
        !dataset.deleted
            && dataset
                .metadata
                .get(NAME_KEY)
                .is_some_and(|name| name == call.name.as_str())
            && dataset
                .metadata
                .get(DRIVER_KEY)
                .is_none_or(|origin| origin != driver)
    });
    namesake.map_or(Ok(()), |found| {
        let text = format!(
            "{call}: dataset {}, made by {}, has that name already; use another name or delete that dataset",
            found.dataset_id,
            origin(found)
        );
        Err(Error::new(Situation::Incompatible, text))
    })
}

fn origin(dataset: &Dataset) -> String {
    dataset
        .metadata
        .get(DRIVER_KEY)
        .map_or("somebody else".to_owned(), |driver| format!("{driver:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::volume::{Parameters, SizePolicy, SizeRange, VolumeName, metadata};

    const DRIVER: &str = "flocker.csi.clusterhq.com";
    const MIB: u64 = 1 << 20;

    fn call(required: i64, limit: i64, profile: Option<&str>) -> NewVolume {
        let range = SizeRange::parse(required, limit).unwrap();
        let policy = SizePolicy {
            default_size: 10 << 30,
            allocation_unit: MIB,
        };
        let pairs: HashMap<_, _> = profile
            .map(|profile| ("profile".to_owned(), profile.to_owned()))
            .into_iter()
            .collect();
        NewVolume {
            name: VolumeName::parse("pvc-1").unwrap(),
            range,
            size: policy.choose(range).unwrap(),
            parameters: Parameters::parse(&pairs).unwrap(),
        }
    }

    fn made(generation: Generation, by: &NewVolume, deleted: bool) -> Dataset {
        Dataset {
            dataset_id: Namespace::new(DRIVER).dataset_id(&by.name, generation),
            primary: Uuid::from_u128(1),
            deleted,
            maximum_size: Some(by.size),
            metadata: metadata(DRIVER, &by.name, generation, &by.parameters).unwrap(),
        }
    }

    fn look(datasets: Vec<Dataset>, call: &NewVolume) -> Result<Existing> {
        find(
            &Snapshot::of(datasets, vec![], &[], vec![]),
            DRIVER,
            &Namespace::new(DRIVER),
            call,
        )
    }

    #[test]
    fn a_new_volume_gets_the_first_generation_that_was_not_deleted() {
        let wanted = call(0, 0, None);
        let free = |generation| Existing::Free {
            dataset: Namespace::new(DRIVER).dataset_id(&wanted.name, generation),
            generation,
        };
        assert_eq!(look(vec![], &wanted).unwrap(), free(0));
        let tombstones = vec![made(0, &wanted, true), made(1, &wanted, true)];
        assert_eq!(look(tombstones, &wanted).unwrap(), free(2));
    }

    #[test]
    fn a_volume_within_the_range_and_of_the_same_profile_is_the_same() {
        let first = call(100 << 20, 0, Some("gold"));
        let there = made(0, &first, false);
        let same = Existing::Same(Volume {
            dataset: there.dataset_id,
            size: 100 * MIB,
        });
        for again in [
            first.clone(),
            call(0, 0, Some("gold")),
            call(64 << 20, 128 << 20, Some("gold")),
        ] {
            assert_eq!(look(vec![there.clone()], &again).unwrap(), same);
        }
    }

    #[test]
    fn any_other_volume_of_the_name_is_refused_with_the_difference() {
        let first = call(100 << 20, 100 << 20, Some("gold"));
        let there = made(0, &first, false);
        let foreign = Dataset {
            metadata: [(NAME_KEY.to_owned(), "pvc-1".to_owned())].into(),
            ..there.clone()
        };
        let elsewhere = Dataset {
            dataset_id: Uuid::from_u128(7),
            ..foreign.clone()
        };
        let cases = [
            (
                there.clone(),
                call(200 << 20, 200 << 20, Some("gold")),
                "104857600 bytes (100 MiB)",
            ),
            (
                there.clone(),
                call(64 << 20, 99 << 20, Some("gold")),
                "limit_bytes 103809024",
            ),
            (
                there.clone(),
                call(0, 0, None),
                "it has profile \"gold\", asked for was no profile",
            ),
            (
                there,
                call(0, 0, Some("silver")),
                "asked for was profile \"silver\"",
            ),
            (foreign, first.clone(), "made by somebody else"),
            (
                elsewhere.clone(),
                first.clone(),
                "dataset 00000000-0000-0000-0000-000000000007",
            ),
        ];
        for (there, wanted, part) in cases {
            let error = look(vec![there], &wanted).unwrap_err();
            assert_eq!(error.situation(), Situation::Incompatible);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        let deleted = Dataset {
            deleted: true,
            ..elsewhere
        };
        assert!(matches!(
            look(vec![deleted], &first).unwrap(),
            Existing::Free { .. }
        ));
    }
}
