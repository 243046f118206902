package dev.tfcompress.demo.screen

import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.res.Configuration
import android.graphics.Bitmap
import android.graphics.drawable.BitmapDrawable
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.TextView
import android.widget.Toast
import dev.tfcompress.demo.R
import dev.tfcompress.demo.tensor.Answer
import java.util.Locale

/** Pick a model and an accelerator, run it on a sample or a photo, see the answer, the times and the agreement. */
class MainActivity : Screen() {
    private val threads = listOf(1, 2, 4)
    private var seen: Shown? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        if (resources.configuration.orientation == Configuration.ORIENTATION_LANDSCAPE) sideBySide()
        press(R.id.open) { ask(Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*"), OPEN, R.string.no_picker) }
        press(R.id.previous) { desk.sample(-1) }
        press(R.id.next) { desk.sample(1) }
        press(R.id.gallery) { ask(Intent(Intent.ACTION_GET_CONTENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*"), GALLERY, R.string.no_picker) }
        press(R.id.camera) { ask(Intent(MediaStore.ACTION_IMAGE_CAPTURE), CAMERA, R.string.no_camera) }
        press(R.id.run) { desk.run() }
        press(R.id.compare) { startActivity(Intent(this, CompareActivity::class.java)) }
        press(R.id.share) { desk.state.outcome?.let { share(desk.report(listOf(it))) } }
    }

    override fun show(state: State) {
        findViewById<View>(R.id.content).visibility = if (state.bundle == null) View.GONE else View.VISIBLE
        if (state.bundle == null) return enable(state, R.id.open)
        models(R.id.model, state, 0)
        accelerators(R.id.accelerator, state, 0)
        choices(R.id.threads, threads.map { it.toString() }, threads.indexOf(state.threads), state) { desk.threads(threads[it]) }
        enable(state, R.id.open, R.id.previous, R.id.next, R.id.run)
        enable(state, R.id.gallery, R.id.camera, also = state.image != null)
        enable(state, R.id.compare, also = state.bundle.manifest.models.size > 1)
        input(state.shown)
        val outcome = state.outcome
        findViewById<View>(R.id.result).visibility = if (outcome == null) View.GONE else View.VISIBLE
        if (outcome != null) {
            answers(outcome.answers)
            table(texts.figures(listOf(outcome)))
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        if (result != RESULT_OK || data == null) return
        val uri = data.data
        when (request) {
            OPEN -> if (uri != null) desk.load { PhoneShelf(applicationContext).take(uri) }
            GALLERY -> if (uri != null) applicationContext.contentResolver.let { desk.photo(getString(R.string.from_gallery)) { Photos.read(it, uri) } }
            CAMERA -> thumbnail(data)?.let { desk.photo(getString(R.string.from_camera)) { Photos.picture(it) } }
        }
    }

    /** Where the screen is wide, what comes out stands beside what goes in. */
    private fun sideBySide() {
        findViewById<LinearLayout>(R.id.content).orientation = LinearLayout.HORIZONTAL
        val gap = Math.round(12 * resources.displayMetrics.density)
        for ((id, start) in listOf(R.id.inputs to 0, R.id.outputs to gap)) {
            val half = LinearLayout.LayoutParams(0, LinearLayout.LayoutParams.WRAP_CONTENT, 1f)
            findViewById<View>(id).layoutParams = half.apply { marginStart = start }
        }
    }

    private fun thumbnail(data: Intent): Bitmap? =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            data.getParcelableExtra("data", Bitmap::class.java)
        } else {
            @Suppress("DEPRECATION") data.getParcelableExtra("data")
        }

    private fun input(shown: Shown?) {
        if (shown === seen) return
        seen = shown
        findViewById<TextView>(R.id.caption).text = shown?.caption ?: getString(R.string.input)
        val picture = shown?.picture
        findViewById<ImageView>(R.id.picture).apply {
            visibility = if (picture == null) View.GONE else View.VISIBLE
            // Its pixels are the model's inputs: they are not smoothed.
            setImageDrawable(picture?.let { BitmapDrawable(resources, Photos.bitmap(it)).apply { isFilterBitmap = false } })
            contentDescription = shown?.let { getString(R.string.picture, it.caption) }
        }
        findViewById<TextView>(R.id.numbers).apply {
            visibility = if (shown != null && picture == null) View.VISIBLE else View.GONE
            text = shown?.numbers.orEmpty().joinToString("  ", postfix = " …") { String.format(Locale.getDefault(), "%.3g", it) }
        }
    }

    private fun answers(answers: List<Answer>) {
        val list = findViewById<LinearLayout>(R.id.answers)
        list.removeAllViews()
        for (answer in answers) {
            val row = inflate(R.layout.answer, list)
            val share = texts.share(answer)
            row.findViewById<TextView>(R.id.label).text = answer.label
            row.findViewById<TextView>(R.id.share_of_it).text = share
            row.findViewById<ProgressBar>(R.id.bar).apply {
                visibility = if (answer.share == null) View.GONE else View.VISIBLE
                progress = Math.round(1000 * (answer.share ?: 0.0)).toInt()
            }
            row.contentDescription = getString(R.string.bar, answer.label, share)
            list.addView(row)
        }
    }

    private fun ask(intent: Intent, request: Int, without: Int) {
        try {
            startActivityForResult(intent, request)
        } catch (_: ActivityNotFoundException) {
            Toast.makeText(this, without, Toast.LENGTH_LONG).show()
        }
    }

    private fun enable(state: State, vararg ids: Int, also: Boolean = true) =
        ids.forEach { findViewById<View>(it).isEnabled = state.busy == null && also }

    private fun press(id: Int, done: () -> Unit) = findViewById<Button>(id).setOnClickListener { done() }

    companion object {
        const val OPEN = 1
        const val GALLERY = 2
        const val CAMERA = 3
    }
}
