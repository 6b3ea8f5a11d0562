import time, psycopg
from tests.benchmarks import test_index_load as T
def test_prof(make_platform, monkeypatch):
    real=psycopg.Connection.execute
    log=[]
    def ex(self,q,*a,**k):
        t=time.perf_counter(); r=real(self,q,*a,**k); d=time.perf_counter()-t
        s=q if isinstance(q,str) else q.as_string(None) if hasattr(q,'as_string') else str(q)
        log.append((d,' '.join(s.split())[:110])); return r
    monkeypatch.setattr(psycopg.Connection,'execute',ex)
    T.test_load_against_bare_copy(make_platform)
    for d,s in sorted(log,reverse=True)[:9]: print(f"{d:6.2f} {s}")
    # search latencies
    monkeypatch.undo()
    from tests.index_world import searcher
    from resources.platform import Platform
    import numpy as np
    p=T_PLAT[0]
    ix=searcher(p); rng=np.random.default_rng(3)
    for mode in ("vector","full_text","hybrid"):
        ts=[]
        for i in range(60):
            q=" ".join(f"word{w}" for w in rng.integers(0,20000,8)); 
            ts.append(ix.search("main",q,mode=mode,k=10).latency*1000)
        print(mode,"p50 %.1f p95 %.1f ms"%(np.percentile(ts[5:],50),np.percentile(ts[5:],95)))
    t=time.perf_counter(); 
    from assets.index.audit import audit
    assert audit(p,"main")==[]; print("audit",time.perf_counter()-t)
    from assets.index.embedding import embed_source
    from assets.index.refreshing import refresh_index
    t=time.perf_counter(); w=embed_source(p,"docs","x"); t1=time.perf_counter(); r=refresh_index(p,"main","docs","x"); t2=time.perf_counter(); print("nothing changed: embed %.3f index %.3f"%(t1-t,t2-t1), w.computed, r.stage.strategy)
T_PLAT=[]
import pytest
@pytest.fixture(autouse=True)
def grab(monkeypatch):
    real=T.specify
    def f(p,i): T_PLAT[:]=[p]; return real(p,i)
    monkeypatch.setattr(T,'specify',f)
