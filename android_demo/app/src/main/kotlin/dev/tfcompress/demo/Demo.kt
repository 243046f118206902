package dev.tfcompress.demo

import android.app.Application
import android.content.pm.ApplicationInfo
import android.os.Handler
import android.os.Looper
import android.os.StrictMode
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.runtime.PhoneEngine
import dev.tfcompress.demo.screen.Desk
import dev.tfcompress.demo.screen.PhoneShelf
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/** What lives as long as the app: the engine, the thread that works, and what the screens share. */
open class Demo : Application() {
    val work: ExecutorService = Executors.newSingleThreadExecutor { Thread(it, "work") }
    val engine: Engine by lazy { newEngine() }
    val desk: Desk by lazy {
        val main = Handler(Looper.getMainLooper())
        Desk(engine, PhoneShelf(this), { version }, work) { main.post(it) }
    }
    val version: String by lazy { packageManager.getPackageInfo(packageName, 0).versionName.orEmpty() }

    /** Tests put the same runtime for Linux here. */
    protected open fun newEngine(): Engine = PhoneEngine()

    override fun onCreate() {
        super.onCreate()
        if (applicationInfo.flags and ApplicationInfo.FLAG_DEBUGGABLE != 0) {
            StrictMode.setThreadPolicy(StrictMode.ThreadPolicy.Builder().detectAll().penaltyLog().build())
            StrictMode.setVmPolicy(StrictMode.VmPolicy.Builder().detectLeakedClosableObjects().detectActivityLeaks().penaltyLog().build())
        }
    }
}
