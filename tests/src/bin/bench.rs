use anyhow::Result;
fn main() -> Result<()> {
    let mut object = lb_tests::bench::object::Object::load()?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &{
        let mut s = nix::sched::CpuSet::new();
        s.set(1)?;
        s
    })?;
    for row in lb_tests::bench::rows::all() {
        let mut case = row.case()?;
        let mut r = lb_tests::bench::cost::measure(&mut object, &mut case, 7)?;
        r.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let m = r[3];
        eprintln!(
            "{:<32} {:6.1} {:6.1} {:7.1} {:5.2} {:5.2} | {:5.2}-{:5.2} ",
            row.name,
            m.bare,
            m.floor,
            m.program,
            m.ratio(),
            m.ratio_without_restore(),
            r[0].ratio(),
            r[6].ratio()
        );
    }
    Ok(())
}
