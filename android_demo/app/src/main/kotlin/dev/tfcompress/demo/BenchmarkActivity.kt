package dev.tfcompress.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.view.WindowManager
import android.widget.TextView
import dev.tfcompress.demo.run.Harness
import java.io.File

/**
 * Measures without a touch, for `tflite-export benchmark --target android --runner app`.
 *
 *     am start -S -n dev.tfcompress.demo/dev.tfcompress.demo.BenchmarkActivity --es manifest FILES/RUN/manifest.json
 *
 * FILES is the app's own folder, /sdcard/Android/data/dev.tfcompress.demo/files: only a run in it is read.
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.benchmark)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        begin(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        begin(intent)
    }

    override fun onDestroy() {
        if (job?.screen === this) job?.screen = null
        super.onDestroy()
    }

    private fun begin(intent: Intent) {
        val asked = intent.getStringExtra("manifest") ?: return line(getString(R.string.benchmark_idle), busy = false)
        val found = job?.takeIf { it.asked == asked } ?: Job(asked).also { new ->
            job = new
            (application as Demo).work.execute { measure(application as Demo, new) }
        }
        found.screen = this
        line(found.line, found.busy)
    }

    private fun line(text: String, busy: Boolean) {
        findViewById<TextView>(R.id.line).text = text
        findViewById<View>(R.id.busy).visibility = if (busy) View.VISIBLE else View.INVISIBLE
    }

    /** A run that outlives the rotation of its screen. */
    private class Job(val asked: String) {
        @Volatile var screen: BenchmarkActivity? = null
        @Volatile var line = ""
        @Volatile var busy = true

        fun tell(text: String, busy: Boolean = true) {
            line = text
            this.busy = busy
            screen?.let { it.runOnUiThread { if (!it.isDestroyed) it.line(text, busy) } }
        }
    }

    companion object {
        @Volatile private var job: Job? = null
        private val RUN = Regex("[A-Za-z0-9_]{1,64}")

        private fun measure(app: Demo, job: Job) {
            val run = File(job.asked).parentFile?.name.orEmpty()
            val files = app.getExternalFilesDir(null)
            if (files == null || !RUN.matches(run)) {
                return job.tell(app.getString(R.string.benchmark_failed, "'${job.asked}' is no run of this app"), busy = false)
            }
            val manifest = File(File(files, run), "manifest.json")
            if (!manifest.isFile) return job.tell(app.getString(R.string.benchmark_failed, "$manifest is not there"), busy = false)
            val wrong = Harness(app.engine, app.version).run(manifest, job::tell)
            val text = if (wrong.isEmpty()) app.getString(R.string.benchmark_done, manifest.parent) else app.getString(R.string.benchmark_failed, wrong)
            job.tell(text, busy = false)
        }
    }
}
