use anyhow::Result;
fn main() -> Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut object = lb_tests::bench::object::Object::load()?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &{ let mut s = nix::sched::CpuSet::new(); s.set(1)?; s })?;
    for row in lb_tests::bench::rows::all().into_iter().filter(|r| r.name.contains(&only)) {
        let mut case = row.case()?;
        let mut r = lb_tests::bench::cost::measure(&mut object, &mut case, 7)?;
        r.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let m = r[3];
        eprintln!("{:<32} {:6.1} {:6.1} {:7.1} {:5.2} {:5.2} | {:5.2}-{:5.2} ", row.name, m.bare, m.floor, m.program, m.ratio(), m.ratio_without_restore(), r[0].ratio(), r[6].ratio());
    }
    if only != "" && !"forward".contains(&only) { return Ok(()) }
    use lb_tests::bench::forward::*;
    let mut lanes = Way::ALL.iter().map(|w| Lane::new(*w)).collect::<Result<Vec<_>>>()?;
    for flows in [1, FLOWS] { for _ in 0..3 { for lane in &mut lanes {
        eprint!("{flows} {:?}; ", lane.measure(flows, std::time::Duration::from_secs(1))?);
    } eprintln!(); } }
    Ok(())
}
