//! Checks a world after all operations have ended: every tenant is either active with each of its resources
//! exactly once, or pending without resources.

use crate::story::Story;
use crate::world::World;

/// All faults found in the stores and by the fault plan.
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
