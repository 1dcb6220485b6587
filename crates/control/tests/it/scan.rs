//! What is wrong with a world once everything is finished: every tenant is active with all that it needs, once, or
//! pending with nothing at all.

use crate::story::Story;
use crate::world::World;

/// Everything that is wrong.
pub async fn faults(world: &World) -> Vec<String> {
    let scan = world.stores().scan().await;
    let mut faults = world.plan.violations();
    faults.extend(scan.orphans);
    for (id, found) in scan.tenants {
        let undisturbed = Story::undisturbed(&found.template, world).await;
        faults.extend(found.faults(undisturbed).into_iter().map(|fault| format!("tenant {id}: {fault}")));
    }
    faults
}
