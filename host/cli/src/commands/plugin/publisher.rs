//! `sluice plugin trust` and `untrust`.

use sluice_api_types::publisher::{Publisher, TrustPublisher};
use sluice_gate_types::signature::PublicKey;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

pub(super) async fn trust(
    global: &Global,
    key: PublicKey,
    tenant: Option<String>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let request = TrustPublisher {
        key: key.to_string(),
        tenant,
    };
    let answer = client.post(&["publishers"])?.body(&request).send().await?;
    drop(answer);
    if !global.json {
        output::print(&format!(
            "trusted {key}: plugins with this signature may be installed\n"
        ))?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn untrust(
    global: &Global,
    key: PublicKey,
    tenant: Option<&str>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    client
        .delete(&["publishers", &key.to_string()])?
        .query(&[("tenant", tenant)])
        .send()
        .await?;
    if !global.json {
        output::print(&format!(
            "{key} is trusted no longer. Machines block what its enforcing gates would check; unbind them (sluice plugin unbind) if that is not meant.\n"
        ))?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn list(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(&["key", "trusted", "by"], global.json);
    let each = |publishers: Vec<Publisher>| {
        list.write(&publishers, |publisher| {
            vec![
                publisher.key.clone(),
                publisher.trusted_at.clone(),
                publisher.operator.clone(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["publishers"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}
