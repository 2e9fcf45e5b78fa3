package constitution_test
import ("testing";"os";"path/filepath";"time";"strings";"strconv";"github.com/opencharacter/opencharacter/constitution")
func TestSlow(t *testing.T){
 fs,_:=filepath.Glob(os.Getenv("FZ")+"/*")
 for _,f:=range fs { b,_:=os.ReadFile(f); l:=strings.Split(string(b),"\n"); if len(l)<3 {continue}
  d,_:=strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(l[1],"[]byte("),")")); n,_:=strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(l[2],"string("),")"))
  t0:=time.Now(); constitution.Parse([]byte(d),n); if e:=time.Since(t0); e>20*time.Millisecond { t.Log(f,len(d),e) } }
 for _,g:=range []string{"- a\n","- ","a: b\n","? ","{","\"","|\n","- 'x\n","#\n","\n","a: |\n  x\n","- trait: I sail\n  questions: [a]\n", "&a ", "!!str ", "x ", "%", "---\n", "- \"a\\n\"\n", ": "} {
  for _,k:=range []int{20000,80000}{ d:="traits:\n"+strings.Repeat(g,k); if len(d)>1<<20 {d=d[:1<<20]}
   t0:=time.Now(); _,err:=constitution.Parse([]byte(d),"a.yaml"); e:=time.Since(t0); if e>200*time.Millisecond { t.Logf("%q x%d %d bytes: %v %.80v",g,k,len(d),e,err)} } }
}
